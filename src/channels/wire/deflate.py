"""permessage-deflate (RFC 7692), kept so that one compressed frame serves many connections.

We always promise `server_no_context_takeover`, so that a frame depends on no earlier one, and ask
for `client_no_context_takeover`, so that an idle connection holds no inflater (some 40 KiB each).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from channels.exceptions import RemoteProtocolError

#: Below this many bytes compression costs more than it saves.
DEFLATE_FROM_BYTES: Final = 256
#: Browsers offer some 70 bytes; the library takes 5 ms to parse 4 KiB.
MAX_OFFER_BYTES: Final = 1024
#: The largest LZ77 window, and the one that frames for many are compressed with.
MAX_WINDOW_BITS: Final = 15

_FACTORY: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_no_context_takeover=True
)


@dataclass(frozen=True, slots=True)
class Deflate:
    """An agreed permessage-deflate."""

    #: The value of Sec-WebSocket-Extensions in the answer.
    header: str
    #: The largest window that the client can inflate.
    window_bits: int
    #: The library's half that inflates; it belongs to one connection.
    extension: Extension


def negotiate(offers: Sequence[str]) -> Deflate | None:
    """The first offer that can be met, or None.

    A client that can inflate only with a window of 8 bits is declined: zlib has none that small.

    Args:
        offers: The values of Sec-WebSocket-Extensions, as they came.

    Raises:
        RemoteProtocolError: If the offers are very long, or one breaks the header's grammar (RFC
            6455 section 9.1).
    """
    if sum(map(len, offers)) > MAX_OFFER_BYTES:
        raise RemoteProtocolError(
            f"Sec-WebSocket-Extensions of over {MAX_OFFER_BYTES} bytes.", status=431
        )
    for value in offers:
        try:
            extensions = parse_extension(value)
        except InvalidHandshake as error:
            raise RemoteProtocolError(f"Sec-WebSocket-Extensions is malformed: {error}.") from None
        for name, parameters in extensions:
            if name != _FACTORY.name:
                continue
            try:
                agreed, extension = _FACTORY.process_request_params(parameters, [])
            except NegotiationError:
                continue
            return Deflate(
                header=build_extension([(name, agreed)]),
                window_bits=extension.local_max_window_bits,
                extension=extension,
            )
    return None


def deflate(payload: bytes, window_bits: int = MAX_WINDOW_BITS) -> bytes:
    """A message's payload, compressed without any context (RFC 7692 section 7.2.1)."""
    squeeze = zlib.compressobj(wbits=-window_bits)
    data = squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    # "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
    return data[:-4]
