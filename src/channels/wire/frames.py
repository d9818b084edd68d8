"""WebSocket frames as a server writes them.

RFC 6455 section 5.1: "A server MUST NOT mask any frames that it sends to the client."
RFC 6455 section 5.2: the payload length takes 7 bits, 7+16 or 7+64, in the fewest that hold it.
"""

from __future__ import annotations

import struct
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RSV1: Final = 0x40

_pack_short = struct.Struct("!BB").pack
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack


def server_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """A whole unmasked message in one frame; `compressed` sets RSV1 (RFC 7692 section 6)."""
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    size = len(payload)
    if size < 126:
        return _pack_short(first, size) + payload
    if size < 65536:
        return _pack_medium(first, 126, size) + payload
    return _pack_long(first, 127, size) + payload
