"""Percent-escapes (RFC 3986 section 2.1) of a target or a field, undone.

The standard library's `unquote_to_bytes` raises and catches an error for each stray "%": 16 KiB of
them took 11 ms.
"""

from __future__ import annotations

import re
from typing import Final

_ESCAPE: Final = re.compile(rb"(%[0-9A-Fa-f]{2})")
_DIGITS: Final = "0123456789abcdefABCDEF"
_OCTETS: Final = {
    f"%{high}{low}".encode(): bytes.fromhex(high + low) for high in _DIGITS for low in _DIGITS
}


def unquote(data: bytes) -> str:
    """The text that percent-encoded UTF-8 stands for.

    A "%" that begins no escape stays; what is not UTF-8 becomes U+FFFD.
    """
    if b"%" in data:
        data = b"".join([_OCTETS.get(part, part) for part in _ESCAPE.split(data)])
    return data.decode("utf-8", "replace")
