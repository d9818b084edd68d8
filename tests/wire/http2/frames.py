"""Frames of HTTP/2 written by hand, and a reader of what a server writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
NAMES = (
    *("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS"),
    *("PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"),
)

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
MAX_HEADER_LIST, ENABLE_CONNECT = 6, 8

Pairs = Iterable[tuple[bytes, bytes]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + (
        payload
    )


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def literal(name: bytes, value: bytes) -> bytes:
    """A literal field without indexing and without Huffman's code: section 6.2.2."""
    return b"\x00" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Pairs) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"localhost")]
POST = [(b":method", b"POST"), *GET[1:]]
CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    *GET[1:],
    (b"sec-websocket-version", b"13"),
]


def headers(
    stream: int = 1, fields: Pairs = GET, *, ends: bool = True, flags: int = END_HEADERS
) -> bytes:
    return frame(HEADERS, flags | (END_STREAM if ends else 0), stream, block(fields))


def data(stream: int, payload: bytes = b"", *, ends: bool = False) -> bytes:
    return frame(DATA, END_STREAM if ends else 0, stream, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack("!HL", *pair) for pair in pairs))


SETTINGS_ACK = frame(SETTINGS, ACK)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!L", increment))


def rst(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack("!L", code))


def goaway(last: int = 0, code: int = NO_ERROR) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack("!LL", last, code))


@dataclass
class Frame:
    """A frame that a server wrote."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: list[tuple[bytes, bytes]]

    def __repr__(self) -> str:
        name = NAMES[self.kind] if self.kind < len(NAMES) else str(self.kind)
        said = self.fields or self.payload[:40]
        return f"{name}(stream={self.stream}, flags={self.flags:#x}, {said!r})"

    @property
    def ends_stream(self) -> bool:
        return self.kind in {DATA, HEADERS} and bool(self.flags & END_STREAM)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])

    @property
    def status(self) -> int:
        return int(dict(self.fields)[b":status"])


class FrameReader:
    """Makes frames of a server's bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._decoder = Decoder()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while len(self._buffer) >= 9:
            size = int.from_bytes(self._buffer[:3])
            if len(self._buffer) < 9 + size:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9])
            payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
            fields = []
            if kind == HEADERS:
                assert flags & END_HEADERS, "our heads are short"
                fields = [(name, value) for name, value in self._decoder.decode(payload, raw=True)]
            yield Frame(kind, flags, stream, payload, fields)
