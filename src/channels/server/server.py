"""The server: endpoints, connections, and an end in order.

Stop order: nothing more is accepted; every session ends (an idle one at once, a response in hand
first, a WebSocket with its close frame); what is left after the timeout is cut; applications have a
last moment for their disconnect handlers and are cancelled; the application hears
`lifespan.shutdown`.  `hurry` ends each of these waits.  Where another process takes over
(`request_drain`), WebSockets are closed one after the other, and an idle connection is kept for a
moment, so that a request which is under way finds somebody.  All of it takes
`Timeouts.stop_seconds` at most, after which `kit/process_exit.py` ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Final

from asgiref.compatibility import guarantee_single_callable

from channels.kit.process_exit import process_exit
from channels.kit.tasks import TaskScope
from channels.kit.types import Address, Application, Scope
from channels.server.access import AccessRecord
from channels.server.admission import Admission
from channels.server.connection import Connection
from channels.server.counts import counts
from channels.server.endpoints import Endpoint
from channels.server.garbage import Garbage
from channels.server.http import HttpSession
from channels.server.http2_library import load_http2
from channels.server.lifespan import Lifespan
from channels.server.listeners import Listener, listen
from channels.server.loop_lag import LoopLag
from channels.server.loops import call_on, run_on_new_loop
from channels.server.notify import notify
from channels.server.options import ServerOptions
from channels.server.probes import PROBE_CONNECTIONS, Probes
from channels.server.scope import ScopeBuilder, client_of
from channels.server.seam import ProtocolSession
from channels.server.service import HttpOutlet, Service, Stamp
from channels.server.turns import TurnEnds
from channels.server.watchdog import Watchdog, log_held
from channels.server.websocket import WebSocketSession
from channels.wire.request import Request

logger: Final = logging.getLogger("django.channels.server")

#: For disconnect handlers after the last connection has closed.
LAST_MOMENT_SECONDS: Final = 2.0
#: For what was cancelled, and in a hurry.
CANCEL_SECONDS: Final = 1.0
HURRIED_SECONDS: Final = 0.25

#: RFC 6455 section 7.4.1 and IANA's registry: "Service Restart".
RESTART_CODE: Final = 1012
#: How long a connection with no request in hand is kept while another process takes over.
IDLE_SECONDS: Final = 1.0

_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\nToo many connections."
)

_TOO_MANY: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\ncontent-length: 39\r\n"
    b"retry-after: 10\r\nconnection: close\r\n\r\nToo many connections from this address."
)


class Server:
    """Serves one application at some endpoints.

    Args:
        on_access: Called with a record of each request and each step of a WebSocket, from the loop:
            it must not block.
    """

    def __init__(
        self,
        application: Application,
        endpoints: Sequence[Endpoint],
        options: ServerOptions | None = None,
        on_access: Callable[[AccessRecord], None] | None = None,
    ) -> None:
        self.application: Application = guarantee_single_callable(application)  # type: ignore[no-untyped-call]
        self.endpoints = tuple(endpoints)
        self.options = options or ServerOptions()
        self._on_access = on_access
        self._garbage = Garbage(
            self.options.collect_after_objects, self.options.collect_after_bytes
        )
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()
        self._no_connections = asyncio.Event()
        self._no_connections.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: TurnEnds | None = None
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        # Of a stop: what WebSockets are closed with, over how long, and whether that is over.
        self._stop_code = self.options.websocket_stop_code
        self._spread_seconds = 0.0
        self._spread_over = asyncio.Event()
        self._shutdowns: TaskScope | None = None
        self._service: Service | None = None
        #: Of connections beyond `max_connections` that may be probes.
        self._full_service: Service | None = None
        self._lifespan: Lifespan | None = None
        self._is_stopping = False
        self._watchdog: Watchdog | None = None
        self._lag = LoopLag()
        self._owns_process = False

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, ports that the system chose included; empty unless it is started."""
        return [address for listener in self._listeners for address in listener.addresses]

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Start the application and listen.

        Raises:
            StartupFailed: If the application cannot start.
            OSError: If an endpoint cannot be had; then none is listened at.
            InvalidOption: If an option or a certificate is no good.
        """
        self._loop = asyncio.get_running_loop()
        self._turns = TurnEnds(self._loop)
        context = copy_context()
        tasks = TaskScope("the server", self._loop)
        stamp = Stamp(self.options.server_name)
        scopes = ScopeBuilder(self.options)
        self._admission = Admission(self.options.limits, scopes.trusts)
        self._http2 = load_http2(self.options, self.endpoints)
        probes = Probes(self.options)
        self._lifespan = Lifespan(self.application, is_required=self.options.lifespan == "on")
        self._service = Service(
            probes.before(self.application),
            self.options,
            scopes,
            stamp,
            tasks,
            self._loop,
            context,
            self,
            self._on_access,
            self._garbage,
            probes,
        )
        if probes:
            self._full_service = replace(self._service, application=probes.when_full())
        try:
            if self.options.lifespan != "off":
                await self._lifespan.startup(context, self.options.timeouts.startup_timeout)
                scopes.state = self._lifespan.state
            handshake = self.options.timeouts.header_timeout
            protocols = ("http/1.1",) if self._http2 is None else ("h2", "http/1.1")
            for endpoint in self.endpoints:
                self._listeners.append(
                    await listen(endpoint, self._make_connection, handshake, protocols)
                )
        except BaseException:
            await self.stop(0)
            raise
        self._lag.follow(self._loop)
        if (slow := self.options.slow_callback_ms) is not None:
            self._watchdog = Watchdog(slow / 1000, log_held)
            self._watchdog.start()

    async def stop(self, timeout: float | None = None) -> None:
        """End in order; what is in hand has so many seconds (default: `shutdown_timeout`)."""
        service, lifespan = self._service, self._lifespan
        if service is None or lifespan is None or self._is_stopping:
            return
        self._is_stopping = service.probes.is_draining = True
        began = time.monotonic()
        seconds = self.options.timeouts.shutdown_timeout if timeout is None else timeout
        if self._listeners:
            self._log_stopping(service, seconds)
        for listener in self._listeners:
            listener.close()
        await self._end_sessions(seconds)
        last_moment = min(LAST_MOMENT_SECONDS, self.options.timeouts.close_timeout)
        await _unless(self._hurry, service.tasks.join(last_moment))
        await self._cancel(service.tasks)
        await _unless(self._hurry, lifespan.shutdown(max(seconds, last_moment)))
        await self._cancel(lifespan.tasks)
        self._lag.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._listeners:
            logger.info("Stopped after %.1f s.", time.monotonic() - began)
        self._listeners.clear()
        self._service = self._lifespan = None
        self._is_stopping = False

    def _log_stopping(self, service: Service, seconds: float) -> None:
        sessions = [connection.session for connection in self._connections]
        websockets = sum(len(_websockets(session)) for session in sessions)
        requests = max(0, len(service.tasks) - websockets)
        logger.info(
            "Stopping: waiting at most %g s for %d requests and %d WebSockets.",
            self._spread_seconds + seconds,
            requests,
            websockets,
        )

    async def _end_sessions(self, seconds: float) -> None:
        shutdowns = TaskScope("the shutdown")
        sessions = [
            connection.session for connection in self._connections if connection.session is not None
        ]
        websockets = [each for session in sessions for each in _websockets(session)]
        step = self._spread_seconds / max(1, len(websockets))
        for place, websocket in enumerate(websockets):
            shutdowns.spawn(self._end_websocket(websocket, place * step))
        idle_seconds = min(IDLE_SECONDS, self._spread_seconds)
        for session in sessions:
            if not isinstance(session, WebSocketSession):
                shutdowns.spawn(session.shutdown(self._stop_code, idle_seconds))
        if idle_seconds:
            # Connections whose TLS handshake or first turn is under way are served, too.
            self._shutdowns = shutdowns
            await _unless(self._hurry, asyncio.sleep(idle_seconds))
        await _unless(self._hurry, self._no_connections.wait(), self._spread_seconds + seconds)
        self._shutdowns = None
        if self._connections:
            logger.warning("Connections that are still open are cut: %d.", len(self._connections))
            counts.cut["stop"] += len(self._connections)
            for connection in [*self._connections]:
                connection.abort()
            await self._no_connections.wait()
        await shutdowns.close()

    async def _end_websocket(self, session: WebSocketSession, delay: float) -> None:
        if delay:
            await _unless(self._spread_over, asyncio.sleep(delay))
        await session.shutdown(self._stop_code)

    async def _cancel(self, tasks: TaskScope) -> None:
        """End what still runs; a task that takes no cancellation must not keep the process."""
        has_ended = await _unless(self._hurry, tasks.close(), CANCEL_SECONDS)
        if not has_ended and self._hurry.is_set():
            has_ended = await tasks.join(HURRIED_SECONDS)
        if not has_ended:
            logger.error("%d tasks of %s did not end when cancelled.", len(tasks), tasks.name)

    async def serve(self) -> None:
        """Start, wait for `request_stop`, stop; asked to stop while it starts, cancel the start.

        Raises:
            StartupFailed, OSError, InvalidOption: As `start` does.
        """
        self._loop = asyncio.get_running_loop()
        if not await _unless(self._stop_asked, self.start()):
            logger.info("Stopped while the application started.")
            return
        try:
            if self._owns_process:
                notify("READY=1")
            await self._stop_asked.wait()
        finally:
            if self._owns_process:
                notify("STOPPING=1")
            await self.stop()

    def request_stop(self) -> None:
        """Let `serve` come to its end; from any thread, any number of times."""
        call_on(self._loop, self._spread_over.set)
        call_on(self._loop, self._stop_asked.set)

    def request_drain(self, spread_seconds: float) -> None:
        """Let `serve` come to its end because another process serves in place of this one.

        WebSockets are closed with 1012, spread over so many seconds, so that their clients do not
        all come back at once; `request_stop` ends the spread.  From any thread.
        """
        call_on(self._loop, partial(self._begin_drain, spread_seconds))

    def _begin_drain(self, spread_seconds: float) -> None:
        if not self._stop_asked.is_set():
            self._stop_code, self._spread_seconds = RESTART_CODE, spread_seconds
            self._stop_asked.set()

    def hurry(self) -> None:
        """Let a stop wait for nothing more; from any thread."""
        call_on(self._loop, self._hurry.set)

    def run(self, *, install_signals: bool = True) -> None:
        """Serve until SIGINT or SIGTERM, on a loop of its own; a second signal ends it at once."""
        # Who takes the signals owns the process, and so its garbage collector.
        self._owns_process = install_signals
        with ExitStack() as stack:
            if install_signals:
                seconds = self.options.timeouts.stop_seconds
                stack.enter_context(process_exit.serving(self, seconds))
                stack.enter_context(self._garbage.owned())
            run_on_new_loop(self.serve())

    # What connections call.

    def _make_connection(self) -> Connection:
        assert self._loop is not None, "it listens only once it is started"
        return Connection(self, self._loop, self._turns)

    def connected(self, connection: Connection) -> ProtocolSession | None:
        """A session for a new connection; None if there are too many, and it has been answered."""
        assert self._service is not None, "connections end before the service does"
        assert self._loop is not None
        most = self.options.limits.max_connections
        self._connections.add(connection)
        self._no_connections.clear()
        counts.connections_opened += 1
        over = 0 if most is None else len(self._connections) - most
        service = self._service
        if self._full_service is not None and 0 < over <= PROBE_CONNECTIONS:
            service, over = self._full_service, 0
        if over > 0 or (self._is_stopping and self._shutdowns is None):
            counts.connections_refused += 1
            self._turn_away(connection, _FULL)
            return None
        if not self._admission.connect(connection, connection.peer):
            self._turn_away(connection, _TOO_MANY)
            return None
        if connection.peer.protocol == "h2":
            return self.open_http2(service, connection)
        session = HttpSession(service, connection, self._loop)
        if self._shutdowns is not None:
            # Accepted when the drain began.
            self._shutdowns.spawn(session.shutdown(self._stop_code, IDLE_SECONDS))
        return session

    def _turn_away(self, connection: Connection, answer: bytes) -> None:
        if self._http2 is not None and connection.peer.protocol == "h2":
            answer = self._http2.refusal
        connection.write(answer)
        connection.linger()

    def open_http2(self, service: Service, outlet: HttpOutlet) -> ProtocolSession:
        """The session of a connection that speaks HTTP/2."""
        assert self._http2 is not None, "it was offered"
        assert isinstance(outlet, Connection), "HTTP/2 has a connection for itself"
        session = self._http2(service, outlet)
        if self._shutdowns is not None:
            self._shutdowns.spawn(session.shutdown(self._stop_code, IDLE_SECONDS))
        return session

    def released(self, outlet: HttpOutlet) -> None:
        """A stream is over, and the WebSocket on it if there was one."""
        self._admission.leave(outlet)

    def open_websocket(
        self, service: Service, outlet: HttpOutlet, request: Request, scope: Scope
    ) -> WebSocketSession:
        """The session of a request that asks for a WebSocket."""
        self._admission.open_websocket(outlet, client_of(scope))
        session = WebSocketSession(service, outlet, request, scope)
        if self._shutdowns is not None:
            # Its handshake was under way when the drain began.
            self._shutdowns.spawn(self._end_websocket(session, self._spread_seconds))
        return session

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone."""
        self._admission.leave(connection)
        counts.connections_ended += connection in self._connections
        self._connections.discard(connection)
        if not self._connections:
            self._no_connections.set()


def _websockets(session: ProtocolSession | None) -> list[WebSocketSession]:
    """Those on one connection: it is one, or has streams that are."""
    if isinstance(session, WebSocketSession):
        return [session]
    streams = getattr(session, "websockets", ())
    return [each for each in streams if isinstance(each, WebSocketSession)]


async def _unless(
    event: asyncio.Event, work: Coroutine[Any, Any, Any], seconds: float | None = None
) -> bool:
    """Run `work`, and cancel it when `event` is set or the time is over; True if it has ended.

    What it raises is raised here.
    """
    scope = TaskScope("a step of the server")
    task = scope.spawn(work, on_done=_look_at)
    waiter = scope.spawn(event.wait())
    try:
        await asyncio.wait({task, waiter}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        has_ended = task.done()
    finally:
        await scope.close()
    if not task.cancelled():
        task.result()
    return has_ended


def _look_at(task: asyncio.Task[None]) -> None:
    """Whoever started it has looked, or looks, at its error."""
    if not task.cancelled():
        task.exception()
