"""Daphne's `Server` class: its constructor and its public names, over the server of Channels."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from channels.kit.limits import MIB, Limits, Timeouts
from channels.kit.types import Address, Application, Message, Receive, Scope, Send
from channels.middleware import single_callable
from channels.server.access import AccessRecord
from channels.server.access_log import client_text
from channels.server.endpoints import parse_endpoint
from channels.server.listening import ListeningServer, listening_text
from channels.server.options import ProxyOptions, ServerOptions
from daphne.protocol import ListeningPort, Protocol

logger = logging.getLogger(__name__)

#: What "at once" becomes, which the server's own options do not know.
SOONEST_SECONDS = 0.01
#: Control frames have up to 125 bytes, whatever the limit is for others.
SMALLEST_FRAME_BYTES = 125

ActionLogger = Callable[[str, str, dict[str, Any]], object]


class Server:
    """Serves `application` on `endpoints` from `run()` until `stop()`.

    A subclass may override what is called for each request and WebSocket (`protocol_connected`,
    `create_application`, `handle_reply`, `protocol_disconnected`) and for each endpoint
    (`listen_success`, `listen_error`).

    Args:
        endpoints: Strings as `build_endpoint_description_strings` makes them.
        action_logger: Called with (protocol, action, details) for each thing that happened.
        ready_callable: Called once all endpoints listen; `listening_addresses` is known then.
        request_buffer_size: Most bytes of a body that one `http.request` carries.
        proxy_root_path_header: Field with the root_path, `Daphne-Root-Path` say; empty: none is
            read.  Like the other three it counts only with `proxy_forwarded_address_header`.
        trusted_proxies: Whose fields are believed: addresses, networks, "unix", or "*" for all:
            Daphne's users let only their proxy connect.
    """

    #: Seconds for running requests and open sockets when the server stops.
    shutdown_timeout = Timeouts().shutdown_timeout

    def __init__(  # noqa: PLR0913, PLR0917 - the signature that other packages call
        self,
        application: Application,
        endpoints: Sequence[str] | None = None,
        signal_handlers: bool = True,
        action_logger: ActionLogger | None = None,
        http_timeout: float | None = None,
        request_buffer_size: int = 8192,
        websocket_timeout: float = 86400,
        websocket_connect_timeout: float = 20,
        ping_interval: float = 20,
        ping_timeout: float = 30,
        root_path: str = "",
        proxy_forwarded_address_header: str | None = None,
        proxy_forwarded_port_header: str | None = None,
        proxy_forwarded_proto_header: str | None = None,
        verbosity: int = 1,
        websocket_handshake_timeout: float = 5,
        application_close_timeout: float = 10,
        ready_callable: Callable[[], object] | None = None,
        server_name: str = "daphne",
        websocket_max_message_size: int = MIB,
        websocket_max_frame_size: int = MIB,
        proxy_root_path_header: str = "",
        trusted_proxies: Sequence[str] = ("*",),
    ) -> None:
        self.application = application
        self._application = single_callable(application)
        self.endpoints = list(endpoints or [])
        self.signal_handlers = signal_handlers
        self.action_logger = action_logger
        self.request_buffer_size = request_buffer_size
        self.verbosity = verbosity
        self.ready_callable = ready_callable
        self.listening_addresses: list[tuple[str, int | None]] = []
        #: What is being served -> {"connected": time.time(), "application_instance": its task}.
        self.connections: dict[Protocol, dict[str, Any]] = {}
        connect_timeouts = (websocket_connect_timeout, websocket_handshake_timeout)
        sizes = (websocket_max_message_size, websocket_max_frame_size, request_buffer_size)
        options = ServerOptions(
            limits=limits_of(*sizes),
            timeouts=Timeouts(
                http_timeout=http_timeout or None,
                handshake_timeout=min(filter(None, map(endless, connect_timeouts)), default=None),
                websocket_timeout=endless(websocket_timeout),
                ping_interval=ping_interval or None,
                ping_timeout=ping_timeout or None,
                close_timeout=max(application_close_timeout, SOONEST_SECONDS),
                shutdown_timeout=self.shutdown_timeout,
            ),
            proxy=believed(
                trusted_proxies,
                (proxy_forwarded_address_header, proxy_forwarded_port_header),
                (proxy_forwarded_proto_header, proxy_root_path_header),
            ),
            root_path=root_path,
            server_name=server_name,
        )
        self._server = self._make_server(options)

    def _make_server(self, options: ServerOptions) -> ListeningServer:
        return ListeningServer(
            self._serve,
            [parse_endpoint(text) for text in self.endpoints],
            options,
            self._on_listening,
            self._on_access if self.action_logger is not None else None,
        )

    def run(self) -> None:
        """Serve in this thread until `stop`, or a signal if `signal_handlers` is true.

        Raises:
            OSError: If an endpoint cannot be bound.
        """
        try:
            self._server.run(install_signals=self.signal_handlers)
        except OSError as error:
            self.listen_error(error)
            raise

    def stop(self) -> None:
        """End `run`, from any thread: connections are closed in order."""
        self._server.request_stop()

    request_stop = stop

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        protocol = Protocol(scope, send)
        self.protocol_connected(protocol)
        try:
            application = self.create_application(protocol, scope)
            # A `send` of its own costs consumers their direct way to the socket.
            if type(self).handle_reply is not Server.handle_reply:
                send = partial(self.handle_reply, protocol)
            await application(scope, receive, send)
        finally:
            self.protocol_disconnected(protocol)

    # What a subclass may override.

    def protocol_connected(self, protocol: Protocol) -> None:
        """A request or a WebSocket begins."""
        self.connections[protocol] = {
            "connected": time.time(),
            "application_instance": asyncio.current_task(),
        }

    def protocol_disconnected(self, protocol: Protocol) -> None:
        """Its application has ended."""
        self.connections.pop(protocol, None)

    def create_application(self, protocol: Protocol, scope: Scope) -> Application:  # noqa: ARG002
        """The application for this request or WebSocket; the scope may be changed here."""
        return self._application

    async def handle_reply(self, protocol: Protocol, message: Message) -> None:
        """Send what the application says."""
        await protocol.handle_reply(message)

    def listen_success(self, port: ListeningPort) -> None:
        """An endpoint listens."""
        where = port.getHost()
        logger.info("%s", listening_text((where.host, where.port)))

    def listen_error(self, failure: BaseException) -> None:
        """An endpoint cannot be had; `run` raises the error afterwards."""
        logger.critical("Listen failure: %s", failure)

    # What Daphne's callers may call.

    def kill_all_applications(self) -> None:
        """Cancel everything that is being served; from any thread."""
        for details in [*self.connections.values()]:
            task: asyncio.Task[None] = details["application_instance"]
            task.get_loop().call_soon_threadsafe(task.cancel)

    def application_checker(self) -> None:
        """There is nothing to check: each connection hears of its application's end at once."""

    def timeout_checker(self) -> None:
        """There is nothing to check: each connection keeps its own deadlines."""

    @staticmethod
    def check_headers_type(message: Message) -> None:
        """Look at a message's headers as `send` does.

        Raises:
            ValueError: If a name or a value is not bytes.
        """
        for pair in message.get("headers", ()):
            for what, found in zip(("name", "value"), pair, strict=True):
                if not isinstance(found, bytes):
                    raise ValueError(
                        f"A header's {what} is bytes: found {found!r}, a {type(found).__name__}."
                    )

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """Hand a happening on to the action logger, if there is one."""
        if self.action_logger is not None:
            self.action_logger(protocol, action, details)

    def _on_listening(self, addresses: Sequence[Address]) -> None:
        # Asked for by deployments that size the threads of sync code by it.
        if (threads := os.environ.get("ASGI_THREADS", "")).isdigit():
            pool = ThreadPoolExecutor(max_workers=int(threads))
            asyncio.get_running_loop().set_default_executor(pool)
        self.listening_addresses = list(addresses)
        for address in addresses:
            self.listen_success(ListeningPort(*address))
        if self.ready_callable is not None:
            self.ready_callable()

    def _on_access(self, record: AccessRecord) -> None:
        protocol, _, action = record.kind.partition(".")
        details: dict[str, Any] = {"path": record.path, "client": client_text(record.client)}
        if protocol == "http":
            action = "complete"
            details |= {
                "method": record.method,
                "status": record.status,
                "size": record.size,
                "time_taken": record.duration,
            }
        self.log_action(protocol, action, details)


def limits_of(message_size: int, frame_size: int, buffer_size: int) -> Limits:
    """Limits in bytes; 0 for a message or a frame: no limit."""
    return Limits(
        max_message_bytes=message_size or None,
        max_frame_bytes=max(frame_size, SMALLEST_FRAME_BYTES) if frame_size else None,
        request_buffer_bytes=buffer_size,
        requires_host=False,
    )


def endless(seconds: float) -> float | None:
    """A timeout; None for a negative one, and the shortest that there is for 0."""
    return None if seconds < 0 else max(seconds, SOONEST_SECONDS)


def believed(
    proxies: Sequence[str],
    address_and_port: tuple[str | None, str | None],
    proto_and_root_path: tuple[str | None, str | None],
) -> ProxyOptions:
    """Proxy options for header names; without one for the address nobody is believed."""
    address, *others = (name or "" for name in (*address_and_port, *proto_and_root_path))
    return ProxyOptions(tuple(proxies), address, *others) if address else ProxyOptions()
