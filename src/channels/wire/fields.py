"""Header fields as they may be written: nothing that could end a line or begin another.

RFC 9110 section 5.1: a field's name is a token.  Section 5.5: its value holds no CR, LF or NUL;
other control characters are refused here too, because a peer that splits lines at them (as
Python's `str.splitlines` does) would read a second field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from channels.exceptions import LocalProtocolError

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def is_token(data: bytes) -> bool:
    """True if `data` is a token: a method, a field's name, a subprotocol."""
    return TOKEN.fullmatch(data) is not None


def checked_fields(fields: Iterable[Any]) -> list[tuple[bytes, bytes]]:
    """The application's header fields, names in lower case, fit to be sent.

    Raises:
        LocalProtocolError: If a field is no pair of byte strings, its name is no token, or its
            value holds a control character.
    """
    checked = []
    for field in fields:
        try:
            name, value = field
        except (TypeError, ValueError):
            raise LocalProtocolError(
                f"A header field is a pair of name and value: found {field!r}."
            ) from None
        if not isinstance(name, (bytes, bytearray)) or not isinstance(value, (bytes, bytearray)):
            raise LocalProtocolError(
                f"A header field's name and value are byte strings: found {name!r} ="
                f" {value!r}, of types {type(name).__name__} and {type(value).__name__}."
            )
        if not is_token(bytes(name)):
            raise LocalProtocolError(f"A header field's name is a token: found {bytes(name)!r}.")
        if _VALUE.fullmatch(value) is None:
            raise LocalProtocolError(
                f"The header field {bytes(name)!r} has a control character in its value:"
                f" {bytes(value)!r}."
            )
        checked.append((bytes(name).lower(), bytes(value).strip(b" \t")))
    return checked
