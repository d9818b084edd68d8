"""Carries WebSockets of HTTP/1.1 to a server on streams of HTTP/2 (RFC 8441).

The suite's client speaks HTTP/1.1 alone.  Each of its sockets becomes a connection of HTTP/2 with
one stream; what the two sides send is passed on as it comes, and so is the end of either half.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

#: RFC 6455 section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Fields of a handshake that are the same in both versions.
PASSED_ON = {b"sec-websocket-extensions", b"sec-websocket-protocol", b"sec-websocket-version"}
STREAM = 1
PIECE_BYTES = 65536


class Stream:
    """One WebSocket on a connection of its own, from the client's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._machine = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._machine.initiate_connection()
        self._may_send = asyncio.Event()

    async def events(self) -> AsyncIterator[Event]:
        """What the server says, until it ends the connection."""
        self._flush()
        while data := await self._reader.read(PIECE_BYTES):
            for event in self._machine.receive_data(data):
                if isinstance(event, DataReceived):
                    size = event.flow_controlled_length or 0
                    self._machine.acknowledge_received_data(size, STREAM)
                yield event
            # Windows may have opened.
            self._may_send.set()
            self._flush()

    def open(self, path: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        """Ask for a WebSocket."""
        pseudo = [
            *((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"http")),
            *((b":path", path), (b":authority", b"127.0.0.1")),
        ]
        self._machine.send_headers(STREAM, [*pseudo, *fields])
        self._flush()

    async def send(self, data: bytes) -> None:
        """Send as the server's windows allow."""
        machine = self._machine
        while data:
            size = min(
                len(data),
                machine.local_flow_control_window(STREAM),
                machine.max_outbound_frame_size,
            )
            if size:
                machine.send_data(STREAM, data[:size])
                data = data[size:]
                self._flush()
            else:
                self._may_send.clear()
                await self._may_send.wait()
        await self._writer.drain()

    def end(self) -> None:
        """Send no more."""
        with contextlib.suppress(ProtocolError):
            self._machine.end_stream(STREAM)
            self._flush()

    def _flush(self) -> None:
        self._writer.write(self._machine.data_to_send())


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: tuple[str, int]
) -> None:
    """Carry one WebSocket, from its handshake to the end of both halves."""
    try:
        path, fields = read_handshake(await reader.readuntil(b"\r\n\r\n"))
        up_reader, up_writer = await asyncio.open_connection(*server)
        try:
            stream = Stream(up_reader, up_writer)
            async with asyncio.TaskGroup() as tasks:
                upward = None
                async for event in stream.events():
                    if isinstance(event, RemoteSettingsChanged):
                        assert SettingCodes.ENABLE_CONNECT_PROTOCOL in event.changed_settings
                        stream.open(path, [pair for pair in fields.items() if pair[0] in PASSED_ON])
                    elif isinstance(event, ResponseReceived):
                        accepted = dict(event.headers or [])
                        writer.write(b"".join(answer(accepted, fields[b"sec-websocket-key"])))
                        upward = tasks.create_task(pass_on(reader, stream))
                    elif isinstance(event, DataReceived):
                        writer.write(event.data or b"")
                        await writer.drain()
                    elif isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                        break
                if upward is not None:
                    upward.cancel()
        finally:
            up_writer.close()
    except* (OSError, ProtocolError, asyncio.IncompleteReadError):
        pass  # One side has gone, and so does the other.
    finally:
        writer.close()


async def pass_on(reader: asyncio.StreamReader, stream: Stream) -> None:
    """Carry what the client says."""
    while data := await reader.read(PIECE_BYTES):
        await stream.send(data)
    stream.end()


def read_handshake(head: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Path and fields of a request."""
    line, *lines = head[:-4].split(b"\r\n")
    pairs = (each.split(b":", 1) for each in lines)
    return line.split()[1], {name.strip().lower(): value.strip() for name, value in pairs}


def answer(accepted: dict[bytes, bytes], key: bytes) -> Iterator[bytes]:
    """The handshake's answer in HTTP/1.1."""
    if accepted[b":status"] != b"200":
        yield b"HTTP/1.1 %b Refused\r\nContent-Length: 0\r\n\r\n" % accepted[b":status"]
        return
    token = base64.b64encode(hashlib.sha1(key + GUID).digest())
    yield b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    yield b"Sec-WebSocket-Accept: %b\r\n" % token
    for name in PASSED_ON & accepted.keys():
        yield b"%b: %b\r\n" % (name, accepted[name])
    yield b"\r\n"


@contextlib.asynccontextmanager
async def relaying(port: int) -> AsyncIterator[int]:
    """A relay to the server on this port; its own."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await carry(reader, writer, ("127.0.0.1", port))

    relay = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with relay:
        yield relay.sockets[0].getsockname()[1]
