"""Field sections as octets: HPACK (RFC 7541) without a dynamic table.

The peer may ask our encoder to remember as much as it likes, and a table costs a search for each
field: with the library's encoder a response took 25 µs more.  So each field is an entry of the
static table or a literal, and the same ones are encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpack.table import HeaderTable

#: Section 6.3: the table holds nothing, whatever the peer allows; said once, in the first section.
_NO_TABLE: Final = b"\x20"
#: Section 6.1, and 6.2.2 with an indexed name: where the bits of an index begin.
_INDEXED: Final = 0x80
_LITERAL: Final = 0x00

_FIELDS: Final = {pair: index for index, pair in enumerate(HeaderTable.STATIC_TABLE, 1)}
#: The first entry with a name.
_NAMES: Final = {
    name: index for index, (name, _) in reversed([*enumerate(HeaderTable.STATIC_TABLE, 1)])
}

#: Fields that were encoded: an application sends the same few again and again.
_encoded: Final[dict[tuple[bytes, bytes], bytes]] = {}
_MOST_ENCODED: Final = 1024
_LONGEST_ENCODED: Final = 128


class HeadEncoder:
    """Takes the place of the library's encoder on one connection."""

    def __init__(self) -> None:
        #: What the peer allows, set by the library; nothing of it is used.
        self.header_table_size = 0
        self._has_begun = False

    def encode(self, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The octets of a field section."""
        pieces = [] if self._has_begun else [_NO_TABLE]
        self._has_begun = True
        for field in fields:
            piece = _encoded.get(field)
            pieces.append(_encode(field) if piece is None else piece)
        return b"".join(pieces)


def _encode(field: tuple[bytes, bytes]) -> bytes:
    name, value = field
    if (index := _FIELDS.get(field)) is not None:
        piece = _integer(index, 7, _INDEXED)
    else:
        index = _NAMES.get(name, 0)
        named = b"" if index else _integer(len(name), 7) + name
        piece = _integer(index, 4, _LITERAL) + named + _integer(len(value), 7) + value
    if len(name) + len(value) <= _LONGEST_ENCODED:
        if len(_encoded) >= _MOST_ENCODED:
            # Most of them are dates of the past.
            _encoded.clear()
        _encoded[field] = piece
    return piece


def _integer(value: int, bits: int, first: int = 0) -> bytes:
    """Section 5.1: an integer whose first bits share an octet with others."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    octets, value = [first | most], value - most
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*octets, value))
