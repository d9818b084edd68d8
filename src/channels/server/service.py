"""What all connections of one server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from channels.kit.tasks import TaskScope
from channels.kit.types import Address, Application, Scope
from channels.server.access import AccessRecord, Kind
from channels.server.counts import counts
from channels.server.garbage import Garbage
from channels.server.options import ServerOptions
from channels.server.peer import Peer
from channels.server.probes import Probes
from channels.server.redaction import Redaction
from channels.server.request_ids import enter_request
from channels.server.scope import ScopeBuilder
from channels.server.seam import Outlet, ProtocolSession
from channels.wire.request import Request


class Stamp:
    """The lines that every response carries: Date, made once a second, and Server."""

    def __init__(self, server_name: str) -> None:
        name = server_name.encode("latin-1")
        self._server = [(b"server", name, b"server: %b\r\n" % name)] if name else []
        self._second = 0
        self._lines: list[tuple[bytes, bytes, bytes]] = []

    def __call__(self) -> list[tuple[bytes, bytes, bytes]]:
        now = int(time.time())
        if now != self._second:
            self._second = now
            date = formatdate(now, usegmt=True).encode()
            self._lines = [(b"date", date, b"date: %b\r\n" % date), *self._server]
        return self._lines


class HttpOutlet(Outlet, Protocol):
    """An outlet that can also change hands."""

    @property
    def peer(self) -> Peer:
        """The two ends of the connection."""

    def linger(self) -> None:
        """Close, but read and drop for a moment what the peer is still sending."""

    def switch(self, session: ProtocolSession, data: bytes) -> None:
        """Hand the connection over to another session, with what was received for it."""


class SessionHost(Protocol):
    """The server, as sessions see it that leave their connection, or a stream of it, to others."""

    def open_websocket(
        self, service: Service, outlet: HttpOutlet, request: Request, scope: Scope
    ) -> ProtocolSession:
        """The session of a request that asks for a WebSocket.

        Raises:
            RemoteProtocolError: If the handshake is to be refused.
        """

    def open_http2(self, service: Service, outlet: HttpOutlet) -> ProtocolSession:
        """The session of a connection that speaks HTTP/2."""

    def released(self, outlet: HttpOutlet) -> None:
        """A stream is over, and the WebSocket on it if there was one."""


@dataclass(frozen=True, slots=True)
class Service:
    """The application and all that its connections need."""

    application: Application
    options: ServerOptions
    scopes: ScopeBuilder
    stamp: Stamp
    tasks: TaskScope
    loop: asyncio.AbstractEventLoop
    #: Context variables as they were when the server started.
    context: Context
    host: SessionHost
    on_access: Callable[[AccessRecord], None] | None = None
    garbage: Garbage = field(default_factory=Garbage)
    probes: Probes = field(default_factory=lambda: Probes(ServerOptions()))
    redact: Redaction = field(init=False)

    def __post_init__(self) -> None:
        # The way to set a field of a frozen dataclass that follows from another.
        object.__setattr__(self, "redact", Redaction(self.options.access_log_redact))

    def context_of(self, scope: Scope) -> Context:
        """A context of its own for the application's call with this scope."""
        context = self.context.copy()
        enter_request(context, scope)
        return context

    def record(
        self,
        kind: Kind,
        line: tuple[str, bytes] | None,
        status: int | None,
        size: int | None,
        client: Address | None,
        duration: float,
        reason: str = "",
        request_id: str = "",
    ) -> None:
        """Count what has happened to a request, and tell the access log; fields of its record.

        Probes are passed over.

        Args:
            line: Its method and target; None if they are not known.
        """
        if line is not None and line[1] in self.probes:
            return
        counts.on_access(kind, status)
        if self.on_access is None:
            return
        method, path = ("-", "-") if line is None else (line[0], self.redact(line[1]))
        record = AccessRecord(
            kind, method, path, status, size, client, duration, reason, request_id
        )
        self.on_access(record)
