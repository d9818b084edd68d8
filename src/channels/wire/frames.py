"""WebSocket frames: as a server writes them, and the headers that it reads.

RFC 6455 section 5.1: "A server MUST NOT mask any frames that it sends to the client."
RFC 6455 section 5.2: the payload length takes 7 bits, 7+16 or 7+64, in the fewest that hold it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from channels.exceptions import RemoteProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MAX_REASON_BYTES",
    "PING",
    "PONG",
    "TEXT",
    "Header",
    "apply_mask",
    "close_payload",
    "read_header",
    "server_frame",
    "unmask",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

#: A control frame has 125 bytes at most, two of them for the code.
MAX_REASON_BYTES: Final = 123

_FIN: Final = 0x80
_RSV1: Final = 0x40
_MASK: Final = 0x80
_CONTROL: Final = 0x08

_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack
_unpack_medium = struct.Struct("!H").unpack_from
_pack_code = struct.Struct("!H").pack
_unpack_long = struct.Struct("!Q").unpack_from


def server_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """A whole unmasked message in one frame; `compressed` sets RSV1 (RFC 7692 section 6)."""
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    size = len(payload)
    if size < 126:
        return _pack_short(first, size) + payload
    if size < 65536:
        return _pack_medium(first, 126, size) + payload
    return _pack_long(first, 127, size) + payload


class Header(NamedTuple):
    """A client frame's header, as far as its size and kind go."""

    opcode: int
    is_final: bool
    #: The three reserved bits, as a number.
    reserved: int
    #: Empty if the frame is not masked.
    mask: bytes
    #: Bytes of payload that follow.
    length: int
    #: Bytes of the header itself.
    size: int

    @property
    def is_control(self) -> bool:
        return bool(self.opcode & _CONTROL)


def read_header(data: bytes, start: int) -> Header | None:
    """The frame header at `start`, or None if it is not whole yet.

    Raises:
        RemoteProtocolError: If the length has its top bit set, takes more bytes than it needs, or
            is over 125 in a control frame.
    """
    held = len(data) - start
    if held < 2:
        return None
    first, second = data[start], data[start + 1]
    length = second & 0x7F
    size = 2
    if length > 125:
        if first & _CONTROL:
            raise RemoteProtocolError("A control frame has at most 125 bytes.")
        size = 4 if length == 126 else 10
        if held < size:
            return None
        unpack, least = (_unpack_medium, 126) if length == 126 else (_unpack_long, 65536)
        (length,) = unpack(data, start + 2)
        # RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length",
        # and "the most significant bit MUST be 0".
        if length < least or length >> 63:
            raise RemoteProtocolError("A frame states its length in the fewest bytes that hold it.")
    mask = b""
    if second & _MASK:
        if held < size + 4:
            return None
        mask = data[start + size : start + size + 4]
        size += 4
    return Header(first & 0x0F, bool(first & _FIN), (first >> 4) & 0x07, mask, length, size)


def unmask(piece: bytes, mask: bytes, offset: int) -> bytes:
    """A piece of a masked payload, in clear; `offset` is its place in the payload."""
    shift = offset % 4
    return apply_mask(piece, mask[shift:] + mask[:shift]) if piece else b""


def close_payload(code: int, reason: str) -> bytes:
    """What a close frame carries; the reason is cut after `MAX_REASON_BYTES`."""
    text = reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
    return _pack_code(code) + text.encode()
