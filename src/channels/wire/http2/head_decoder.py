"""Field sections from octets: the library's HPACK decoder, with Content-Length under another name.

The library h2 reads Content-Length itself, and ends the connection when it is malformed or the body
has another size.  RFC 9113 section 8.1.1 asks for the end of that one stream, so h2 is shown a name
that it does not know, and `connection.py` compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack import Decoder
from hpack.struct import HeaderTuple

CONTENT_LENGTH: Final = b"content-length"
#: No client can send this name: it is no token, and the empty name stands in its place.
HIDDEN_LENGTH: Final = b"content-length\0"
_NAMES: Final = {CONTENT_LENGTH: HIDDEN_LENGTH, HIDDEN_LENGTH: b""}


class HeadDecoder(Decoder):
    """Takes the place of the library's decoder on one connection."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """The fields of a field section; names are octets."""
        fields = list(super().decode(data, raw=raw))
        for name, _ in fields:
            if name in _NAMES:
                return [HeaderTuple(_NAMES.get(each[0], each[0]), each[1]) for each in fields]
        return fields
