"""WebSocket frames as a client writes them, well-formed or not (RFC 6455 section 5.2)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from tests.hostile.client import RawClient, Response

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
#: RFC 6455 section 1.3 works out this very answer to the key above.
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

_MASK = b"\x37\xfa\x21\x3d"
_NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "bytes", PING: "ping", PONG: "pong"}


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bits: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """One frame.

    Args:
        length_bits: 7, 16 or 64 to write the length in a wider field than it needs.
        claimed: The length that the header states, if it is not the payload's.
    """
    size = len(payload) if claimed is None else claimed
    bits = length_bits or (7 if size < 126 else 16 if size < 65536 else 64)
    flag = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if bits == 7:
        head += bytes([flag | size])
    elif bits == 16:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    return head + _MASK + mask(payload) if masked else head + payload


def mask(payload: bytes) -> bytes:
    """The payload under the mask (RFC 6455 section 5.3)."""
    size = len(payload)
    key = (_MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def text(words: str | bytes) -> bytes:
    return frame(TEXT, words.encode() if isinstance(words, str) else words)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def deflated(payload: bytes) -> bytes:
    """A payload as permessage-deflate carries it (RFC 7692 section 7.2.1)."""
    squeeze = zlib.compressobj(wbits=-15)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def handshake(
    path: str = "/", *extra: bytes, without: tuple[bytes, ...] = (), line: bytes | None = None
) -> bytes:
    """An opening handshake (RFC 6455 section 4.1).

    Args:
        extra: More header lines, without CRLF.
        without: Names of the header fields to leave out.
        line: The request line, if it is not the usual one.
    """
    lines = [
        b"Host: hostile.test",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
    ]
    kept = [each for each in lines if each.partition(b":")[0] not in without]
    first = line or b"GET %s HTTP/1.1" % path.encode("latin-1")
    return b"\r\n".join([first, *kept, *extra, b"", b""])


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from the server."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int

    def __str__(self) -> str:
        """Short form for tables: `text 5`, `close 1002`, `pong 0`."""
        if self.opcode == CLOSE:
            code = struct.unpack("!H", self.payload[:2])[0] if self.payload else "empty"
            return f"close {code}"
        return f"{_NAMES.get(self.opcode, self.opcode)} {len(self.payload)}"


class WebSocketClient(RawClient):
    """A raw client that has, after `open`, a WebSocket in its hands."""

    def open(self, path: str = "/", *extra: bytes) -> Response:
        """Shake hands; any other answer than 101 is a failure of the test."""
        self.send(handshake(path, *extra))
        answer = self.response()
        assert answer.status == 101, answer
        assert answer.header(b"sec-websocket-accept") == ACCEPT
        return answer

    def read_frame(self) -> Frame:
        """The next frame.

        Raises:
            ConnectionEnded: If the stream ends instead.
            TimeoutError: If nothing comes.
        """
        first, second = self.take(2)
        # RFC 6455 section 5.1: "A server MUST NOT mask any frames that it sends to the client."
        assert not second & 0x80, "the server masked a frame"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        return Frame(first & 0x0F, self.take(size), bool(first & 0x80), first & 0x70)
