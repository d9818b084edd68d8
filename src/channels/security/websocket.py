"""Which web pages may open a WebSocket here.

Browsers let any page open a WebSocket to any host, cookies included, and only tell the server by
the Origin header which page it is (RFC 6455, section 10.2; RFC 6454, section 7).  What is no origin
in the strict sense counts as none: a lenient reading of "https://evil.com\\.good.com" or of a user
name before the host is how such checks are passed by.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import ParseResult, urlparse

from django.conf import settings
from django.utils.http import is_same_domain

from channels.kit.printable import printable
from channels.kit.types import Application, Receive, Scope, Send
from channels.middleware import single_callable

logger = logging.getLogger("django.channels")

#: A scheme, a host of what names and IP addresses are made of, a port.  A path, which only clients
#: other than browsers send, is let pass: it has no say.
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[!-\[\]-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
#: Patterns that one log line shows.
_MOST_SHOWN: Final = 10
#: Where Django itself serves in development with an empty ALLOWED_HOSTS.
_DEBUG_HOSTS: Final = (".localhost", "127.0.0.1", "[::1]")


class OriginValidator:
    """Lets a WebSocket through to the application if its Origin matches one of some patterns.

    Patterns: "*" (everything, no Origin too), "example.com" (every scheme and port),
    ".example.com" (its subdomains as well), "example.com:8080", and with a scheme, whose default
    port is meant where none is given: "https://example.com", "https://.example.com:8443".

    Raises:
        ValueError: When called with a scope of another type.
    """

    def __init__(self, application: Any, allowed_origins: Iterable[str]) -> None:
        self.application = single_callable(application)
        #: Looked at for each connection, so a one-time iterator is kept as a tuple.
        self.allowed_origins = (
            tuple(allowed_origins) if isinstance(allowed_origins, Iterator) else allowed_origins
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] != "websocket":
            raise ValueError(
                f"OriginValidator is for WebSockets: found a scope of type {scope['type']!r}."
            )
        found = [value for name, value in scope["headers"] if name == b"origin"]
        # Two of them: whoever sits before this server may have judged by the other one.
        if len(found) < 2 and self.valid_origin(parse_origin(found[0]) if found else None):
            return await self.application(scope, receive, send)
        origin = printable(b", ".join(found).decode("latin1"))
        wrong = f"origin '{origin}' is not allowed" if found else "it has no Origin header"
        patterns = list(map(str, self.allowed_origins))
        shown = ", ".join(patterns[:_MOST_SHOWN]) or "none"
        more = ", ..." if len(patterns) > _MOST_SHOWN else ""
        logger.warning("WebSocket refused: %s; allowed: %s%s", wrong, shown, more)
        return await WebsocketDenier()(scope, receive, send)

    def valid_origin(self, parsed_origin: ParseResult | None) -> bool:
        """True if a connection with this origin may pass; None is a missing or invalid one."""
        if parsed_origin is None:
            return "*" in self.allowed_origins
        return self.validate_origin(parsed_origin)

    def validate_origin(self, parsed_origin: ParseResult) -> bool:
        """True if one of the patterns matches."""
        return any(
            pattern == "*" or self.match_allowed_origin(parsed_origin, pattern)
            for pattern in self.allowed_origins
        )

    def match_allowed_origin(self, parsed_origin: ParseResult | None, pattern: str) -> bool:
        """True if this one pattern matches."""
        if parsed_origin is None or not parsed_origin.hostname:
            return False
        pattern = pattern.lower()
        has_scheme = "://" in pattern
        allowed = urlparse(pattern if has_scheme else f"//{pattern}")
        if not allowed.hostname or "*" in allowed.hostname:
            return False
        if not is_same_domain(parsed_origin.hostname, allowed.hostname):
            return False
        if has_scheme:
            same_port = self.get_origin_port(parsed_origin) == self.get_origin_port(allowed)
            return parsed_origin.scheme == allowed.scheme and same_port
        return allowed.port is None or self.get_origin_port(parsed_origin) == allowed.port

    def get_origin_port(self, origin: ParseResult) -> int | None:
        """The port of an origin, or its scheme's default, or None."""
        return origin.port if origin.port is not None else _DEFAULT_PORTS.get(origin.scheme)


def parse_origin(origin: bytes) -> ParseResult | None:
    """The parts of an Origin header, or None if it is not exactly one origin."""
    text = origin.decode("latin1")
    if not _ORIGIN.fullmatch(text):
        return None
    try:
        parsed = urlparse(text)
        # Looked at here, because a port above 65535 raises only when it is read.
        _ = parsed.port
    except ValueError:
        return None
    return parsed


class AllowedHosts(Iterable[str]):
    """The setting ALLOWED_HOSTS as it is when a connection opens, as for Django's requests."""

    def __iter__(self) -> Iterator[str]:
        hosts = settings.ALLOWED_HOSTS
        return iter(_DEBUG_HOSTS if settings.DEBUG and not hosts else hosts)


def AllowedHostsOriginValidator(application: Any) -> OriginValidator:  # noqa: N802 - a public name
    """Lets pages of the hosts in ALLOWED_HOSTS through, with every scheme and port."""
    return OriginValidator(application, AllowedHosts())


class WebsocketDenier:
    """An application that refuses every WebSocket, before it is accepted: HTTP 403.

    Used as consumers are: `WebsocketDenier.as_asgi()`, or as in Channels 2 `WebsocketDenier(scope)`
    called with receive and send.  But no channel layer hears of a connection that is refused.
    """

    def __init__(self, scope: Scope | None = None) -> None:
        self.scope = scope

    @classmethod
    def as_asgi(cls) -> Application:
        """The application."""

        # Not an instance, which a router takes for a consumer that all connections would share.
        async def deny(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(scope)(receive, send)

        return deny

    async def __call__(self, *arguments: Any) -> None:
        """Refuse; the last argument is `send`."""
        send: Send = arguments[-1]
        await send({"type": "websocket.close"})
