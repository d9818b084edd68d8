"""Users by token, for clients without cookies: programs, mobile apps, pages of another site.

    "websocket": TokenAuthMiddleware(URLRouter(...), authenticate=user_of_token)

where the client puts it                                  for
Authorization: Bearer TOKEN                               programs and mobile apps
Sec-WebSocket-Protocol: chat, bearer.TOKEN                pages: new WebSocket(url, ["chat", ...])
?ticket=TICKET                                            pages: `channels.security.tickets`

A client with none of them passes, with the user that the scope has, or as an AnonymousUser.  One
whose token is refused is answered with 401.  The application's `subprotocols` never hold a token,
nor does the server's answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from django.core.exceptions import PermissionDenied

from channels.auth import anonymous
from channels.db import database_sync_to_async
from channels.kit.doors import rebuilt_door
from channels.kit.types import Message, Receive, Scope, Send
from channels.middleware import BaseMiddleware
from channels.security.access import AccessMiddleware
from channels.security.credential import CREDENTIAL, Credential
from channels.security.hooks import call_hook, check_hook
from channels.security.refusal import refuse
from channels.security.tickets import redeem_ticket

#: The longest token or ticket that is looked at; JWTs with many claims take 2 to 4 KiB.
MAX_TOKEN_CHARACTERS: Final = 8192
#: What a subprotocol begins with that carries a token.
BEARER: Final = "bearer."

#: Called with a token and the scope.
Authenticate = Callable[[str, Scope], Any]


class TokenUser(NamedTuple):
    """What `authenticate` returns for a token that expires."""

    user: Any
    #: An aware datetime, or seconds since the epoch, as a JWT's "exp"; None: never.
    expires_at: datetime | float | None = None


class TokenAuthMiddleware(BaseMiddleware):
    """Puts the user of a token or ticket into scope["user"], and ends the socket with the token.

    What is inside is looked after by `AccessMiddleware`; put your own one directly inside to give
    it options.

    Args:
        authenticate: Gives the user of a token, a `TokenUser` for one that expires, or None (or
            raises PermissionDenied) to refuse it.  A coroutine function, or a function, which runs
            in a thread and may use the database.  None: no tokens are taken, tickets alone.
        ticket_parameter: Of the query; None: no tickets are taken.
    """

    def __init__(
        self,
        inner: Any,
        authenticate: Authenticate | None = None,
        *,
        ticket_parameter: str | None = "ticket",
    ) -> None:
        super().__init__(inner if isinstance(inner, AccessMiddleware) else AccessMiddleware(inner))
        if authenticate is not None:
            check_hook("authenticate", authenticate, "(token, scope)")
        elif not ticket_parameter:
            raise TypeError("TokenAuthMiddleware takes neither tokens nor tickets: give it one.")
        self.authenticate = authenticate
        self.ticket_parameter = ticket_parameter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:  # type: ignore[override]
        """Serve the connection as the user of its token; answer 401 if that is refused."""
        if scope["type"] not in {"http", "websocket"}:
            return await self.inner(scope, receive, send)
        scope = dict(scope)
        tokens, tickets = self._tokens(scope), self._tickets(scope)
        credential = None
        if tokens or tickets:
            credential = await self._credential(scope, tokens, tickets)
            if credential is None:
                why = "its token or ticket is not valid"
                return await refuse(scope, send, 401, why, www_authenticate="Bearer")
        if credential is not None:
            scope[CREDENTIAL], scope["user"] = credential, credential.user
        else:
            scope.setdefault("user", anonymous())
        offered = scope.get("subprotocols") or []
        kept = [name for name in offered if not self._is_token(name)]
        if len(kept) == len(offered):
            return await self.inner(scope, receive, send)
        if not kept:
            # RFC 6455 section 4.1: a browser fails a connection whose server agrees to none.
            why = f"it offers no subprotocol beside {BEARER}TOKEN, which the server never agrees to"
            return await refuse(scope, send, 400, why)
        scope["subprotocols"] = kept
        agreeing = partial(_agree, send, kept[0])
        return await self.inner(rebuilt_door(scope, send, agreeing), receive, agreeing)

    def _tokens(self, scope: Scope) -> list[str]:
        if self.authenticate is None:
            return []
        found = []
        for name, value in scope["headers"]:
            scheme, _, token = value.decode("latin-1").partition(" ")
            # RFC 9110 section 11.1: the scheme has no case.
            if name == b"authorization" and scheme.lower() == "bearer":
                found.append(token.strip())
        offered = scope.get("subprotocols") or ()
        return found + [name[len(BEARER) :] for name in offered if self._is_token(name)]

    def _is_token(self, subprotocol: str) -> bool:
        return self.authenticate is not None and subprotocol.lower().startswith(BEARER)

    def _tickets(self, scope: Scope) -> list[str]:
        name, query = self.ticket_parameter, scope.get("query_string", b"")
        if not name or name.encode() not in query:
            return []
        return parse_qs(query.decode("latin-1"), keep_blank_values=True).get(name, [])

    async def _credential(
        self, scope: Scope, tokens: list[str], tickets: list[str]
    ) -> Credential | None:
        """Who is let in; with two tokens nobody, for a proxy may have judged by the other one."""
        if len(tokens) + len(tickets) > 1:
            return None
        (shown,) = tokens or tickets
        if not 0 < len(shown) <= MAX_TOKEN_CHARACTERS:
            return None
        if tickets:
            return await database_sync_to_async(redeem_ticket)(shown)
        return await self._ask(shown, scope)

    async def _ask(self, token: str, scope: Scope) -> Credential | None:
        try:
            answer = await call_hook(self.authenticate, token, scope)  # type: ignore[arg-type]
        except PermissionDenied:
            return None
        if answer is None:
            return None
        user, expires_at = answer if isinstance(answer, tuple) else (answer, None)
        if not hasattr(user, "is_authenticated"):
            raise TypeError(
                f"authenticate returned a {type(user).__name__}: expected a user, a TokenUser, or "
                "None to refuse the token."
            )
        if not user.is_authenticated or not getattr(user, "is_active", True):
            return None
        if isinstance(expires_at, datetime):
            expires_at = expires_at.timestamp()
        if expires_at is not None and expires_at <= time.time():
            return None
        return Credential(user, expires_at, look_again=partial(self._ask, token, scope))


async def _agree(send: Send, subprotocol: str, message: Message) -> None:
    """Send an event; an application that accepts with no subprotocol agrees to this one."""
    if message["type"] == "websocket.accept" and not message.get("subprotocol"):
        message = {**message, "subprotocol": subprotocol}
    await send(message)
