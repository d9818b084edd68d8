"""The server: endpoints, connections, and an end in order.

Stop order: nothing more is accepted; every session ends (an idle one at once, a response in hand
first, a WebSocket with its close frame); what is left after the timeout is cut; applications have a
last moment for their disconnect handlers and are cancelled; the application hears
`lifespan.shutdown`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Final

from asgiref.compatibility import guarantee_single_callable

from channels.kit.exits import run_past_exits
from channels.kit.tasks import TaskScope
from channels.kit.types import Address, Application
from channels.server.access import AccessRecord
from channels.server.connection import Connection
from channels.server.counts import counts
from channels.server.endpoints import Endpoint
from channels.server.garbage import seldom_collected
from channels.server.http import HttpSession
from channels.server.lifespan import Lifespan
from channels.server.listeners import Listener, listen
from channels.server.options import ServerOptions
from channels.server.scope import ScopeBuilder
from channels.server.seam import Session
from channels.server.service import Service, Stamp
from channels.server.turns import TurnEnds
from channels.server.watchdog import Watchdog, log_held
from channels.server.websocket import WebSocketSession

logger: Final = logging.getLogger("django.channels.server")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

#: For disconnect handlers after the last connection has closed, and again once cancelled.
LAST_MOMENT_SECONDS: Final = 2.0

_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\nToo many connections."
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
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()
        self._no_connections = asyncio.Event()
        self._no_connections.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: TurnEnds | None = None
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._service: Service | None = None
        self._lifespan: Lifespan | None = None
        self._is_stopping = False
        self._watchdog: Watchdog | None = None

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
        self._lifespan = Lifespan(self.application, is_required=self.options.lifespan == "on")
        self._service = Service(
            self.application,
            self.options,
            scopes,
            stamp,
            tasks,
            self._loop,
            context,
            WebSocketSession,
            self._on_access,
        )
        try:
            if self.options.lifespan != "off":
                await self._lifespan.startup(context, self.options.timeouts.startup_timeout)
                scopes.state = self._lifespan.state
            handshake = self.options.timeouts.header_timeout
            for endpoint in self.endpoints:
                self._listeners.append(await listen(endpoint, self._make_connection, handshake))
        except BaseException:
            await self.stop(0)
            raise
        if (slow := self.options.slow_callback_ms) is not None:
            self._watchdog = Watchdog(slow / 1000, log_held)
            self._watchdog.start()

    async def stop(self, timeout: float | None = None) -> None:
        """End in order; what is in hand has so many seconds (default: `shutdown_timeout`)."""
        service, lifespan = self._service, self._lifespan
        if service is None or lifespan is None or self._is_stopping:
            return
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        seconds = self.options.timeouts.shutdown_timeout if timeout is None else timeout
        await self._end_sessions(seconds)
        last_moment = min(LAST_MOMENT_SECONDS, self.options.timeouts.close_timeout)
        if not self._hurry.is_set():
            await service.tasks.join(last_moment)
        await _close(service.tasks)
        await lifespan.shutdown(max(seconds, last_moment))
        await _close(lifespan.tasks)
        if self._watchdog is not None:
            self._watchdog.stop()
        self._listeners.clear()
        self._service = self._lifespan = None
        self._is_stopping = False

    async def _end_sessions(self, seconds: float) -> None:
        shutdowns = TaskScope("the shutdown")
        for connection in [*self._connections]:
            if connection.session is not None:
                shutdowns.spawn(connection.session.shutdown())
        ends = {
            shutdowns.spawn(self._no_connections.wait()),
            shutdowns.spawn(self._hurry.wait()),
        }
        if self._connections:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._connections:
            logger.warning("Cutting %d connections at the end.", len(self._connections))
            counts.cut["stop"] += len(self._connections)
            for connection in [*self._connections]:
                connection.abort()
            await self._no_connections.wait()
        await shutdowns.close()

    async def serve(self) -> None:
        """Start, wait for `request_stop`, stop."""
        await self.start()
        try:
            await self._stop_asked.wait()
        finally:
            await self.stop()

    def request_stop(self) -> None:
        """Let `serve` come to its end; from any thread, any number of times."""
        self._on_loop(self._stop_asked.set)

    def hurry(self) -> None:
        """Let a stop wait for nothing more; from any thread."""
        self._on_loop(self._hurry.set)

    def _on_loop(self, call: Callable[[], None]) -> None:
        if self._loop is None:
            call()
            return
        # A loop that has ended needs no telling.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    def run(self, *, install_signals: bool = True) -> None:
        """Serve until SIGINT or SIGTERM, on a loop of its own; a second signal ends it at once."""
        # Who takes the signals owns the process, and so its garbage collector.
        objects = self.options.collect_after_objects if install_signals else None
        with asyncio.Runner(loop_factory=_loop_factory()) as runner, seldom_collected(objects):
            serving = self._serve_with_signals() if install_signals else self.serve()
            run_past_exits(runner.get_loop(), serving)

    async def _serve_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self.serve()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    # What connections call.

    def _make_connection(self) -> Connection:
        assert self._loop is not None, "it listens only once it is started"
        return Connection(self, self._loop, self._turns)

    def connected(self, connection: Connection) -> Session | None:
        """A session for a new connection; None if there are too many, and it has been answered."""
        assert self._service is not None, "connections end before the service does"
        assert self._loop is not None
        most = self.options.limits.max_connections
        self._connections.add(connection)
        self._no_connections.clear()
        counts.connections_opened += 1
        if self._is_stopping or (most is not None and len(self._connections) > most):
            counts.connections_refused += 1
            connection.write(_FULL)
            connection.linger()
            return None
        return HttpSession(self._service, connection, self._loop)

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone."""
        counts.connections_ended += connection in self._connections
        self._connections.discard(connection)
        if not self._connections:
            self._no_connections.set()


async def _close(tasks: TaskScope) -> None:
    """End what still runs; a task that takes no cancellation must not keep the process."""
    try:
        await asyncio.wait_for(tasks.close(), LAST_MOMENT_SECONDS)
    except TimeoutError:
        logger.error("%d tasks of %s did not end when cancelled.", len(tasks), tasks.name)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
