"""A listening socket with real connections, short of the server's own start and stop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import copy_context
from typing import Any

from channels.kit.limits import Limits, Timeouts
from channels.kit.tasks import TaskScope
from channels.kit.types import Application, Message, Receive, Scope, Send
from channels.server.access import AccessRecord
from channels.server.connection import Connection
from channels.server.http import HttpSession
from channels.server.http2 import Http2Session
from channels.server.options import ServerOptions
from channels.server.scope import ScopeBuilder
from channels.server.seam import ProtocolSession
from channels.server.service import HttpOutlet, Service, Stamp
from channels.server.websocket import WebSocketSession
from channels.wire.request import Request
from tests.wire.peer import frame


class Shell:
    """What `serve` gives: an address, what happened, and every connection's session."""

    def __init__(self, application: Application, options: ServerOptions) -> None:
        self.options = options
        self.records: list[AccessRecord] = []
        self.connections: set[Connection] = set()
        self.tasks = TaskScope("test")
        self.port = 0
        self.service = Service(
            application=application,
            options=options,
            scopes=ScopeBuilder(options),
            stamp=Stamp("test"),
            tasks=self.tasks,
            loop=asyncio.get_running_loop(),
            context=copy_context(),
            host=self,
            on_access=self.records.append,
        )

    def connected(self, connection: Connection) -> ProtocolSession:
        self.connections.add(connection)
        return HttpSession(self.service, connection, asyncio.get_running_loop())

    def open_websocket(
        self, service: Service, outlet: HttpOutlet, request: Request, scope: Scope
    ) -> ProtocolSession:
        return WebSocketSession(service, outlet, request, scope)

    def open_http2(self, service: Service, outlet: HttpOutlet) -> ProtocolSession:
        assert isinstance(outlet, Connection)
        return Http2Session(service, outlet)

    def released(self, outlet: HttpOutlet) -> None:
        """A stream is over."""

    def disconnected(self, connection: Connection) -> None:
        self.connections.discard(connection)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def kinds(self) -> list[str]:
        return [record.kind.removeprefix("websocket.") for record in self.records]

    async def stop(self) -> None:
        """What a server does with its connections when it stops."""
        code = self.options.websocket_stop_code
        sessions = [each.session for each in self.connections if each.session is not None]
        await asyncio.gather(*(session.shutdown(code) for session in sessions))


@contextlib.asynccontextmanager
async def serve(
    application: Application,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    **options: Any,
) -> AsyncIterator[Shell]:
    """Serve on a free port; at the end nothing of it may be left."""
    shell = Shell(
        application,
        ServerOptions(limits=limits or Limits(), timeouts=timeouts or Timeouts(), **options),
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(shell, loop), "127.0.0.1", 0)
    shell.port = server.sockets[0].getsockname()[1]
    try:
        yield shell
    finally:
        server.close()
        for connection in list(shell.connections):
            connection.abort()
        await shell.tasks.close()
        await eventually(lambda: not shell.connections)
        await server.wait_closed()


#: uvloop hands the exception of pytest-timeout's signal to its exception handler, and goes on.
POLL_SECONDS = 40


async def eventually(is_true: Callable[[], object]) -> None:
    """Give the loop its turns until something holds; raises TimeoutError."""
    async with asyncio.timeout(POLL_SECONDS):
        while not is_true():  # noqa: ASYNC110 - most of what is waited for has no event
            await asyncio.sleep(0.001)


class RawClient:
    """A client that writes bytes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.head = b""

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def read_head(self) -> int:
        """Read the answer to the handshake; returns its status."""
        self.head = await self.reader.readuntil(b"\r\n\r\n")
        self.status = int(self.head.split()[1])
        return self.status

    async def read_frame(self) -> tuple[int, bytes] | None:
        """The next frame (first byte, payload), or None at the end."""
        try:
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def read_frames(self) -> list[tuple[int, bytes]]:
        """All frames up to the end of the connection."""
        found = []
        while (got := await self.read_frame()) is not None:
            found.append(got)
        return found

    async def read_close(self) -> int | None:
        """Answer the close frame and read to the end; its code, or None if there was none."""
        code = None
        while (got := await self.read_frame()) is not None:
            first, payload = got
            if first == 0x88:
                assert code is None, "two close frames"
                code = int.from_bytes(payload[:2])
                with contextlib.suppress(ConnectionError):
                    self.send(frame(0x8, payload))
        return code


def request(*fields: str, path: str = "/", key: str | None = None) -> bytes:
    """A handshake request, with more fields."""
    key = key or base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *fields,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@contextlib.asynccontextmanager
async def dial(
    shell: Shell,
    *fields: str,
    accepted: bool = True,
    handshake: bytes | None = None,
    early: bytes = b"",
) -> AsyncIterator[RawClient]:
    """Connect and shake hands; `early` is sent in the same packet as the request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
    client = RawClient(reader, writer)
    try:
        client.send(handshake or request(*fields), early)
        if accepted:
            assert await client.read_head() == 101
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def text(payload: str) -> bytes:
    return frame(0x1, payload.encode())


class Recorder:
    """An application that notes what it receives and does what `handle` says.

    The default accepts, echoes, and returns after `websocket.disconnect`.
    """

    def __init__(
        self, handle: Callable[[Recorder, Message, Send], Awaitable[None]] | None = None
    ) -> None:
        self.scopes: list[Scope] = []
        self.events: list[Message] = []
        self.running = 0
        self._handle = handle or Recorder.echo

    @property
    def kinds(self) -> list[str]:
        return [event["type"].removeprefix("websocket.") for event in self.events]

    @property
    def disconnect(self) -> Message:
        """The one disconnect event."""
        (event,) = [event for event in self.events if event["type"] == "websocket.disconnect"]
        return event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.running += 1
        try:
            while True:
                event = await receive()
                self.events.append(event)
                if event["type"] == "websocket.disconnect":
                    return
                await self._handle(self, event, send)
        finally:
            self.running -= 1

    async def echo(self, event: Message, send: Send) -> None:
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({**event, "type": "websocket.send"})

    async def until_disconnected(self) -> Message:
        await eventually(lambda: self.running == 0 and "disconnect" in self.kinds)
        return self.disconnect
