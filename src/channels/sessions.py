"""Cookies and Django sessions for connections.

An HTTP connection saves its session as the response starts, because the cookie travels in its
headers.  A WebSocket has no later response: its session is saved after each handler that changed
it, under the key that the client's cookie holds already.  As it may have been loaded hours before,
only what this connection changed is written over what is stored by then.

No key is made that no response can tell the client: a client without a stored session has the
session of its connection, which nothing saves by itself, and `channels.auth.login` keeps the stored
session as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from importlib import import_module
from time import time
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import SuspiciousOperation
from django.http import parse_cookie
from django.utils.functional import LazyObject, empty
from django.utils.http import http_date

from channels.db import database_sync_to_async
from channels.kit.doors import DOOR
from channels.kit.old_names import old_names
from channels.kit.threads import PoolExecutor
from channels.kit.types import Message, Receive, Scope, Send
from channels.middleware import single_callable
from channels.stores import catch_up, long_lived

P = ParamSpec("P")
T = TypeVar("T")

_LONG_AGO: Final = "Thu, 01 Jan 1970 00:00:00 GMT"
#: RFC 6265bis, section 4.1.2.7; "" stands for: no such attribute.
_SAME_SITE: Final = frozenset({"", "lax", "strict", "none"})
#: Characters of cookies, and those of the cookie at their end, that are parsed in one turn of the
#: event loop.
_PARSED_AT_A_STRETCH: Final = 8_192
#: What stands after a backslash in a quoted value, in octal -> the character.
_OCTAL: Final = {f"{code:03o}": chr(code) for code in range(256)}


class CookieMiddleware:
    """Puts the request's cookies into scope["cookies"], as a dict of strings.

    Raises:
        ValueError: When called with a scope without headers.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = single_callable(inner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if "headers" not in scope:
            raise ValueError(
                f"CookieMiddleware needs scope['headers'], which a scope of type "
                f"{scope.get('type')!r} has not; use it for 'http' and 'websocket' only."
            )
        # HTTP/2 may carry the cookies in several fields: RFC 9113, section 8.2.3.
        fields = [value for name, value in scope["headers"] if name == b"cookie"]
        scope = dict(scope, cookies=await _parse_fields(fields))
        return await self.inner(scope, receive, send)

    @classmethod
    def set_cookie(  # noqa: PLR0913, PLR0917 - the compatible signature
        cls,
        message: Message,
        key: str,
        value: str = "",
        max_age: float | timedelta | None = None,
        expires: str | datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Add a Set-Cookie header to a message that starts a response or accepts a WebSocket.

        Args:
            max_age: Seconds; None lets the cookie end with the browser, if `expires` is None too.
            expires: The header's text, or a datetime: a naive one counts as UTC.

        Raises:
            AssertionError: If `samesite` is not "lax", "strict", "none" or empty.
        """
        if (samesite or "").lower() not in _SAME_SITE:
            raise AssertionError(
                f"samesite must be 'strict', 'lax', or 'none': found {samesite!r}."
            )
        jar: SimpleCookie = SimpleCookie()
        jar[key] = value
        cookie = jar[key]
        if isinstance(max_age, timedelta):
            max_age = max_age.total_seconds()
        if isinstance(expires, datetime):
            max_age, expires = _seconds_until(expires), None
        if expires is not None:
            cookie["expires"] = expires
        if max_age is not None:
            cookie["max-age"] = int(max_age)
            if expires is None:
                cookie["expires"] = http_date(time() + max_age)
        cookie["path"] = path or ""
        cookie["domain"] = domain or ""
        cookie["secure"] = secure
        cookie["httponly"] = httponly
        cookie["samesite"] = samesite or ""
        # A new list: an application may send one constant list with every response.
        message["headers"] = [
            *message.get("headers", ()),
            (b"Set-Cookie", cookie.OutputString().encode()),
        ]

    @classmethod
    def delete_cookie(
        cls,
        message: Message,
        key: str,
        path: str | None = "/",
        domain: str | None = None,
        samesite: str | None = "lax",
    ) -> None:
        """Let the browser drop a cookie; path and domain must be those that it was set with."""
        # Browsers ignore what claims a secure prefix, or to be for other sites, without "Secure".
        secure = key.startswith(("__Secure-", "__Host-")) or (samesite or "").lower() == "none"
        cls.set_cookie(
            message,
            key,
            max_age=0,
            expires=_LONG_AGO,
            path=path,
            domain=domain,
            secure=secure,
            samesite=samesite,
        )


async def _parse_fields(fields: Iterable[bytes]) -> dict[str, str]:
    text = b";".join(fields).decode("latin1")
    cookies: dict[str, str] = {}
    start = 0
    while start < len(text):
        if start:
            await asyncio.sleep(0)
        end = text.find(";", start + _PARSED_AT_A_STRETCH)
        if end < 0:
            end = len(text)
        cookies.update(parse_cookies(text[start:end]))
        start = end + 1
    return cookies


def parse_cookies(text: str) -> dict[str, str]:
    """The cookies of a header's text, as Django's `parse_cookie` gives them, in linear time.

    Python before 3.11.10 and 3.12.6 takes time with the square of a quoted value's backslashes
    (CVE-2024-7592), and Django unquotes by it: 1 s for 16 KiB.
    """
    if "\\" not in text:
        return parse_cookie(text)
    cookies: dict[str, str] = {}
    for chunk in text.split(";"):
        name, equals, value = chunk.partition("=")
        if not equals:
            name, value = "", name
        name, value = name.strip(), value.strip()
        if name or value:
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = _unescape(value[1:-1])
            cookies[name] = value
    return cookies


def _unescape(quoted: str) -> str:
    parts = iter(quoted.split("\\"))
    found = [next(parts)]
    for part in parts:
        if not part:
            # A backslash that is escaped: what follows the second one is no escape.
            found += "\\", next(parts, "")
        elif (octal := _OCTAL.get(part[:3])) is not None:
            found += octal, part[3:]
        else:
            found.append(f"\\{part}" if part[0] == "\n" else part)
    return "".join(found)


def _seconds_until(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Rounded up, for the header has whole seconds.
    return max(0, int((moment - datetime.now(UTC)).total_seconds()) + 1)


class LazySession(LazyObject):  # type: ignore[type-arg]  # generic in its stubs only
    """The session in a scope: known by name before the middleware has found its key."""

    def _setup(self) -> None:
        raise ValueError(
            "The session was used before SessionMiddleware resolved it: read scope['session'] "
            "inside the application that the middleware wraps."
        )


class InstanceSessionWrapper:
    """One connection's session: its scope, and the `send` that saves it and sets the cookie.

    A subclass may let more messages save the session or carry its cookie; "websocket.accept" in
    both sets a cookie as a WebSocket is accepted.
    """

    #: Messages that the session is saved before, if it was changed.
    save_message_types: ClassVar[Sequence[str]] = ["http.response.start"]
    #: Messages among them that carry the cookie in their headers.
    cookie_response_message_types: ClassVar[Sequence[str]] = ["http.response.start"]

    def __init__(self, scope: Scope, send: Send) -> None:
        self.cookie_name: str = settings.SESSION_COOKIE_NAME
        self.session_store = import_module(settings.SESSION_ENGINE).SessionStore
        self.scope = dict(scope)
        self.real_send = send
        #: False below another session middleware, which then does the work for both.
        self.activated = "session" not in scope
        self._failed = False
        if self.activated:
            if "cookies" not in scope:
                raise ValueError(
                    "SessionMiddleware needs scope['cookies']: put CookieMiddleware around it, or "
                    "use SessionMiddlewareStack."
                )
            self.scope["session"] = LazySession()

    @property
    def sees_messages(self) -> bool:
        """True if messages of this connection have to pass through `send`."""
        if not self.activated:
            return False
        if type(self).send is not InstanceSessionWrapper.send:
            return True
        return self._have_part_in([*self.save_message_types, *self.cookie_response_message_types])

    def _have_part_in(self, message_types: Sequence[str]) -> bool:
        protocol = f"{self.scope.get('type')}."
        return any(name.startswith(protocol) for name in message_types)

    async def resolve_session(self) -> None:
        """Find the session's key in the cookies; its data is loaded when it is first used."""
        if self.activated:
            key = self.scope["cookies"].get(self.cookie_name)
            is_http = self.scope.get("type") == "http"
            store = self.session_store if is_http else long_lived(self.session_store)
            session = self.scope["session"]._wrapped = store(key)
            session.cookie_is_final = not self._have_part_in(self.cookie_response_message_types)

    async def send(self, message: Message) -> None:
        """Save the session and set its cookie if this message calls for it, then send it on."""
        if self.activated and message["type"] in self.save_message_types:
            self._failed = message.get("status", 200) >= 500
            # The application's message may be a constant that it sends to everyone.
            message = dict(message)
            await self._save_before(message)
        await self.real_send(message)

    async def save_session(self) -> None:
        """Save the session, changed or not.

        Raises:
            SuspiciousOperation: If the session has been deleted meanwhile.
        """
        await _save(self.scope["session"], self.scope)

    async def save_rest(self) -> None:
        """Save what was changed after the last message that could save it."""
        session = resolved_session(self.scope)
        if self.activated and session is not None and not self._failed:
            await _save_changes(session, self.scope)

    async def _save_before(self, message: Message) -> None:
        session: Any = resolved_session(self.scope)
        if session is None:
            return
        carries_cookie = message["type"] in self.cookie_response_message_types
        varies = session.accessed
        if session.is_empty():
            if carries_cookie and self.cookie_name in self.scope["cookies"]:
                varies = True
                CookieMiddleware.delete_cookie(
                    message,
                    self.cookie_name,
                    path=settings.SESSION_COOKIE_PATH,
                    domain=settings.SESSION_COOKIE_DOMAIN,
                    samesite=settings.SESSION_COOKIE_SAMESITE or None,
                )
        elif (session.modified or settings.SESSION_SAVE_EVERY_REQUEST) and not self._failed:
            await self.save_session()
            session.modified = False
            if carries_cookie:
                self._set_session_cookie(message, session)
        if varies and message["type"] == "http.response.start":
            _vary_on_cookie(message)
        if carries_cookie:
            session.cookie_is_final = True

    def _set_session_cookie(self, message: Message, session: Any) -> None:
        # The session was just saved, so nothing here loads it on the event loop.
        ends_with_browser = session.get_expire_at_browser_close()
        CookieMiddleware.set_cookie(
            message,
            self.cookie_name,
            session.session_key,
            max_age=None if ends_with_browser else session.get_expiry_age(),
            domain=settings.SESSION_COOKIE_DOMAIN,
            path=settings.SESSION_COOKIE_PATH,
            secure=bool(settings.SESSION_COOKIE_SECURE),
            httponly=bool(settings.SESSION_COOKIE_HTTPONLY),
            samesite=settings.SESSION_COOKIE_SAMESITE or None,
        )


def _vary_on_cookie(message: Message) -> None:
    """Tell caches that another client's response may differ: RFC 9110, section 12.5.5."""
    fields = list(message.get("headers", ()))
    named = b",".join(value for name, value in fields if name.lower() == b"vary").lower()
    if not {b"cookie", b"*"} & {each.strip() for each in named.split(b",")}:
        message["headers"] = [*fields, (b"Vary", b"Cookie")]


class SessionMiddleware:
    """Puts the client's Django session into scope["session"]; needs scope["cookies"].

    A response whose session was used before it began says `Vary: Cookie`.  The data is loaded at
    first use, which under a database engine means: in sync code, by
    `await scope["session"].aget(...)`, or by AuthMiddleware inside this one.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = single_callable(inner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        wrapper = InstanceSessionWrapper(scope, send)
        await wrapper.resolve_session()
        # The server's own `send` stays in place where it can: consumers recognise it and then
        # take the short way to the socket.
        inner_send = wrapper.send if wrapper.sees_messages else send
        result = await self.inner(wrapper.scope, receive, inner_send)
        await wrapper.save_rest()
        return result


def SessionMiddlewareStack(inner: Any) -> CookieMiddleware:  # noqa: N802 - a public name
    """SessionMiddleware with the CookieMiddleware that it needs."""
    return CookieMiddleware(SessionMiddleware(inner))


async def save_if_modified(scope: Scope) -> None:
    """Save the scope's session if it was changed since it was loaded or last saved.

    Does nothing for a scope without a resolved session, for HTTP, whose session is saved as the
    response starts, and for a session without a key, which no cookie could find.  Values that this
    connection did not change keep what others stored; of two connections that change one value,
    the later one wins.

    Raises:
        SuspiciousOperation: If the session has been deleted meanwhile, by a logout for example.
    """
    session = resolved_session(scope)
    if session is not None and session.modified and scope.get("type") != "http":
        await _save_changes(session, scope)


def may_change_key(scope: Scope) -> bool:
    """True if a response that is still to come can tell the client its session's new key."""
    is_final = scope.get("type") == "websocket"
    return not getattr(resolved_session(scope), "cookie_is_final", is_final)


def in_thread(scope: Scope, function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Database work for a connection, to be awaited.

    Under our own server it runs on the bounded pool, so that a thousand clients who reconnect at
    once do not wait in line for one thread.  Elsewhere it runs where asgiref runs sync code, which
    in a test is where the test's transaction is.
    """
    if DOOR in (scope.get("extensions") or ()):
        pool: Any = PoolExecutor()
        return database_sync_to_async(function, thread_sensitive=False, executor=pool)
    return database_sync_to_async(function)


def resolved_session(scope: Scope) -> Any:
    """The session behind scope["session"], or None if there is none or none was resolved yet."""
    found: Any = scope.get("session")
    if isinstance(found, LazyObject):
        found = found._wrapped
        return None if found is empty else found
    return found if hasattr(found, "modified") else None


async def _save_changes(session: Any, scope: Scope) -> None:
    # Without a key nothing is stored, or not any more since a flush(), and no response can name a
    # new one.
    if not session.modified or session.session_key is None:
        return
    # Reset first: what a concurrent handler changes while the thread saves is saved next time.
    session.modified = False
    try:
        await _save(session, scope)
    except BaseException:
        session.modified = True
        raise


async def _save(session: Any, scope: Scope) -> None:
    try:
        await in_thread(scope, _save_now)(session)
    except UpdateError:
        raise SuspiciousOperation(
            "The session was deleted while this connection used it; the user may have logged out "
            "elsewhere."
        ) from None


def _save_now(session: Any) -> None:
    # A session that is gone is left to save(), which raises UpdateError for it.
    catch_up(session)
    session.save()


#: Of Channels 1.
__getattr__ = old_names(
    __name__,
    {
        "channel_and_http_session": "channels.legacy.sessions",
        "channel_session": "channels.legacy.sessions",
        "enforce_ordering": "channels.legacy.sessions",
        "http_session": "channels.legacy.sessions",
        "requeue_messages": "channels.legacy.sessions",
        "session_for_reply_channel": "channels.legacy.sessions",
        "wait_channel_name": "channels.legacy.sessions",
    },
)
