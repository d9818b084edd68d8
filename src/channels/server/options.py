"""Everything about the server that can be set, declared once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from channels.exceptions import InvalidOption
from channels.kit.limits import MIB, Limits, Timeouts
from channels.kit.options import check_options, option

#: Names under which secrets commonly stand in a query.
SECRET_PARAMETERS: Final = (
    "token",
    "access_token",
    "auth_token",
    "refresh_token",
    "id_token",
    "csrfmiddlewaretoken",
    "ticket",
    "jwt",
    "api_key",
    "apikey",
    "password",
    "secret",
    "signature",
    "sessionid",
)

_PATH: Final = re.compile(r"/[A-Za-z0-9/._~-]*")


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Which proxies are believed, and in which fields they say whom they speak for."""

    trusted_proxies: tuple[str, ...] = option(
        (),
        help="addresses and networks of the proxies whose X-Forwarded-* fields are believed; "
        "'unix' for any peer on a Unix socket, '*' for every peer",
    )
    address_header: str = option(
        "X-Forwarded-For",
        flag="--proxy-headers-host",
        help="field with the client's address, the nearest proxy's entry last",
    )
    port_header: str = option(
        "X-Forwarded-Port",
        flag="--proxy-headers-port",
        help="field with the client's port; read only beside an address",
    )
    proto_header: str = option(
        "X-Forwarded-Proto",
        flag="--proxy-headers-proto",
        help="field with the scheme that the client used",
    )
    root_path_header: str = option(
        "",
        flag="--proxy-headers-root-path",
        help="field with the path at which the proxy mounts the application, in place of "
        "root_path, such as Daphne-Root-Path; empty: none is read.  The proxy must set or clear it "
        "in every request",
    )
    request_id_header: str = option(
        "X-Request-ID",
        flag="--proxy-headers-request-id",
        help="field with the request's id, taken over where request_ids is on; empty: none is read",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of one server."""

    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    proxy: ProxyOptions = field(default_factory=ProxyOptions)
    root_path: str = option("", help="where the application is mounted: ASGI's root_path")
    access_log_redact: tuple[str, ...] = option(
        SECRET_PARAMETERS,
        help="parameters of a query whose values the access log does not show; '' shows all",
    )
    server_name: str = option("channels", help="the Server field of responses; empty for none")
    http2: bool | None = option(
        None,
        none="over TLS, where the h2 library is installed",
        help="speak HTTP/2: over TLS to clients that choose it, without TLS to those that begin "
        "with it",
    )
    websocket_compression: bool = option(
        True, help="agree to permessage-deflate where a WebSocket client offers it"
    )
    websocket_stop_code: int = option(
        1001,
        unit="close code",
        minimum=1000,
        maximum=4999,
        help="what WebSockets are closed with when the server stops: 1001 going away, or 1012 "
        "service restart if it comes back",
    )
    collect_after_objects: int | None = option(
        10_000,
        unit="objects",
        minimum=100,
        none="leave the garbage collector as it is",
        help="new containers after which the garbage collector runs, in a process that only serves",
    )
    slow_callback_ms: float | None = option(
        None,
        unit="milliseconds",
        minimum=1,
        none="not watched",
        help="name in the log, with its stack, what holds the event loop for longer; costs a "
        "thread, and some wake-ups of the loop in each such time",
    )
    collect_after_bytes: int | None = option(
        32 * MIB,
        unit="bytes",
        minimum=MIB,
        none="whatever their size",
        help="bodies of ended requests and WebSocket messages after which the garbage collector "
        "runs too: an application's reference cycles may hold them",
    )
    request_ids: bool = option(
        False, help="give each request an id, in scope['request_id'] and in the log"
    )
    health_path: str = option(
        "",
        help="path at which the server itself answers 200 while it lives, such as /healthz; empty: "
        "none",
    )
    ready_path: str = option(
        "",
        help="path at which the server itself answers 200 while it is ready, and 503 while it "
        "drains or a channel layer is out of reach, such as /readyz; empty: none",
    )
    lifespan: str = option(
        "auto",
        choices=("auto", "on", "off"),
        help="whether the application is told of start and stop: 'auto' goes on without if it "
        "raises, 'on' demands it",
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("health_path", "ready_path"):
            path = getattr(self, name)
            if path and not _PATH.fullmatch(path):
                raise InvalidOption(
                    f"{name}={path!r}: expected a path such as /healthz, of letters, digits, and "
                    "any of / . _ ~ -"
                )
        if self.health_path and self.health_path == self.ready_path:
            raise InvalidOption(
                f"health_path and ready_path are both {self.ready_path!r}: a server that drains is "
                "not ready, and must not be taken for dead."
            )
