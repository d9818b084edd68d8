"""A client of HTTP/2 that sends the frames that it is told to send."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.wire.http2 import frames
from tests.wire.http2.frames import Frame, FrameReader, Pairs


@dataclass
class Response:
    """What came on one stream."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    #: Status of each interim response.
    interim: list[int] = field(default_factory=list)
    has_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.fields)[b":status"])

    def __getitem__(self, name: bytes) -> bytes:
        return dict(self.fields)[name]


class Http2Client:
    """One connection; `opens_windows` says whether what is read is acknowledged."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames: list[Frame] = []
        self.responses: dict[int, Response] = {}
        self.goaways: list[Frame] = []
        self.is_closed = False
        self.opens_windows = True
        self._frame_reader = FrameReader()

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def get(self, stream: int, path: bytes = b"/", *fields: tuple[bytes, bytes]) -> None:
        self.send(frames.headers(stream, request(b"GET", path, *fields)))

    def post(self, stream: int, path: bytes, *pieces: bytes) -> None:
        self.send(frames.headers(stream, request(b"POST", path), ends=False))
        for piece in pieces[:-1]:
            self.send(frames.data(stream, piece))
        self.send(frames.data(stream, pieces[-1] if pieces else b"", ends=True))

    async def read(self) -> bool:
        """Take what has come; False at the end of the connection."""
        try:
            data = await self.reader.read(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.is_closed = True
            return False
        for found in self._frame_reader.feed(data):
            self.frames.append(found)
            self._take(found)
        return True

    def _take(self, found: Frame) -> None:
        response = self.responses.setdefault(found.stream, Response())
        if found.kind == frames.HEADERS:
            if response.fields:
                response.trailers = found.fields
            elif 100 <= found.status < 200:
                response.interim.append(found.status)
            else:
                response.fields = found.fields
        elif found.kind == frames.DATA:
            response.body += found.payload
            if self.opens_windows and found.payload:
                size = len(found.payload)
                self.send(frames.window_update(0, size))
                if not found.ends_stream:
                    self.send(frames.window_update(found.stream, size))
        elif found.kind == frames.RST_STREAM:
            response.reset = found.code
        elif found.kind == frames.GOAWAY:
            self.goaways.append(found)
        elif found.kind == frames.SETTINGS and not found.flags:
            self.send(frames.SETTINGS_ACK)
        elif found.kind == frames.PING and not found.flags:
            self.send(frames.frame(frames.PING, frames.ACK, 0, found.payload))
        response.has_ended |= found.ends_stream

    async def until(self, is_true: Callable[[], object]) -> None:
        """Read until something holds.

        Raises:
            EOFError: If the connection ends before.
        """
        while not is_true():
            if not await self.read():
                raise EOFError(f"The server closed: {self.frames[-5:]}")

    async def response(self, stream: int) -> Response:
        """The response on a stream, once that is over."""
        await self.until(lambda: self.is_over(stream))
        return self.responses[stream]

    def is_over(self, stream: int) -> bool:
        response = self.responses.get(stream)
        return response is not None and (response.has_ended or response.reset is not None)

    async def read_to_end(self) -> None:
        while await self.read():
            pass

    async def round_trip(self) -> None:
        """Return once the server has taken all that was sent before."""
        before = len(self.frames)
        self.send(frames.frame(frames.PING, 0, 0, b"12345678"))
        await self.until(
            lambda: any(
                each.kind == frames.PING and each.flags and each.payload == b"12345678"
                for each in self.frames[before:]
            )
        )


def request(method: bytes, path: bytes = b"/", *fields: tuple[bytes, bytes]) -> Pairs:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        *fields,
    ]


@contextlib.asynccontextmanager
async def dial_http2(
    port: int, *settings: tuple[int, int], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Http2Client]:
    """Connect and say that HTTP/2 is spoken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    client = Http2Client(reader, writer)
    try:
        client.send(frames.PREFACE, frames.settings(*settings))
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
