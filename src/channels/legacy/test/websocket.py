"""A client of WebSocket and HTTP consumers, with cookies, headers, a session and a user."""

from __future__ import annotations

import copy
import json as json_module
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from channels import DEFAULT_CHANNEL_LAYER
from channels.legacy.sessions import session_for_reply_channel
from channels.legacy.test.client import Client


class WSClient(Client):
    """Sends messages as an interface server does for one connection.

    Args:
        ordered: Whether messages have an `order`, as `enforce_ordering` wants it.
    """

    def __init__(self, alias: str = DEFAULT_CHANNEL_LAYER, ordered: bool = False) -> None:
        super().__init__(alias)
        self.order = 0
        self._ordered = ordered
        self._headers: dict[str, bytes] = {}
        self._cookies: dict[str, str] = {}
        self._session: SessionBase | None = None

    def set_cookie(self, key: str, value: str) -> None:
        """Send a cookie from now on."""
        self._cookies[key] = value

    def set_header(self, key: str, value: str | bytes) -> None:
        """Send a header from now on.

        Raises:
            ValueError: For the cookie header: `set_cookie` makes it.
        """
        if key.lower() == "cookie":
            raise ValueError("The cookie header is made of what set_cookie() was given: call that.")
        self._headers[key] = value if isinstance(value, bytes) else value.encode("latin-1")

    def get_cookies(self) -> dict[str, str]:
        """The cookies that are sent, the session's among them."""
        cookies = dict(self._cookies)
        key = self.session.session_key if apps.is_installed("django.contrib.sessions") else None
        if key is not None:
            cookies[settings.SESSION_COOKIE_NAME] = key
        return cookies

    @property
    def headers(self) -> dict[str, bytes]:
        """The headers that are sent."""
        cookies = SimpleCookie(self.get_cookies()).values()
        pairs = "; ".join(cookie.OutputString() for cookie in cookies)
        return {**self._headers, "cookie": pairs.encode("ascii")}

    @property
    def session(self) -> SessionBase:
        """The HTTP session, which is not the channel session once a user has logged in."""
        if self._session is None:
            self._session = session_for_reply_channel(self.reply_channel)
        return self._session

    def login(self, **credentials: Any) -> bool:
        """Log in as Django's test client does; False if the credentials are wrong."""
        user = authenticate(**credentials)
        if user is None or not user.is_active:
            return False
        self._login(user, None)
        return True

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Log in without credentials.

        Args:
            backend: Which of AUTHENTICATION_BACKENDS, None for the first.
        """
        self._login(user, backend or settings.AUTHENTICATION_BACKENDS[0])

    def _login(self, user: Any, backend: str | None) -> None:
        request = HttpRequest()
        request.session = self.session
        login(request, user, backend)
        self.session.save()

    def send(
        self,
        to: str,
        content: Mapping[str, Any] | None = None,
        text: Any = None,
        path: str = "/",
    ) -> None:
        """Send a message to a channel, with what an interface server adds.

        Args:
            text: The text of a frame; what is no string is encoded as JSON.
            path: The path, with a query string if there is one.

        Raises:
            ValueError: If the client is `ordered` and the content has an order as well.
        """
        self.channel_layer.send(to, self._message(dict(content or {}), text, path))

    def _message(self, content: dict[str, Any], text: Any, path: str) -> dict[str, Any]:
        path, has_query, query = path.partition("?")
        defaults: dict[str, Any] = {
            "reply_channel": self.reply_channel,
            "path": path,
            "headers": [
                (name.lower().encode("ascii"), value) for name, value in self.headers.items()
            ],
        }
        if has_query:
            defaults["query_string"] = query
        message = {**defaults, **copy.deepcopy(content)}
        if self._ordered:
            if "order" in content:
                raise ValueError(
                    f"content has order={content['order']!r}, which a client with ordered=True "
                    "sets itself: leave it out."
                )
            message["order"] = self.order
            self.order += 1
        text = text or content.get("text")
        if text is not None:
            message["text"] = text if isinstance(text, str) else json_module.dumps(text)
        return message

    def send_and_consume(  # type: ignore[override] # as upstream
        self,
        channel: str,
        content: Mapping[str, Any] | None = None,
        text: Any = None,
        path: str = "/",
        fail_on_none: bool = True,
        check_accept: bool = True,
    ) -> Any:
        """Send a message and run its consumer; arguments and errors as for `send`, `consume`."""
        self.send(channel, content, text, path)
        return self.consume(channel, fail_on_none=fail_on_none, check_accept=check_accept)

    def consume(self, channel: str, fail_on_none: bool = True, check_accept: bool = True) -> Any:
        """Run the consumer of a channel's next message, and return what it returns.

        Args:
            check_accept: Whether a WebSocket that opens must be accepted, and nothing else.

        Raises:
            AssertionError: If it is not, or as for `Client.consume`.
        """
        returned = super().consume(channel, fail_on_none=fail_on_none)
        if channel == "websocket.connect" and check_accept:
            received = self.receive(json=False)
            if received != {"accept": True}:
                raise AssertionError(
                    f"Connection rejected: expected {{'accept': True}}, found {received!r}."
                )
        return returned

    def receive(self, json: bool = True) -> Any:
        """The next reply: of a text frame the text, of another reply the content; None: none.

        Args:
            json: Whether a text is decoded.
        """
        content = super().receive()
        text = content.get("text") if content else None
        if text is None:
            return content
        return json_module.loads(text) if json and isinstance(text, str) else text
