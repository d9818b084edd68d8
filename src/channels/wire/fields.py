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
#: Names that were found good, in lower case: an application sends the same few again and again.
_NAMES: Final[dict[bytes, bytes]] = {}
_MOST_NAMES: Final = 256
_LONGEST_NAME: Final = 64
_TOKEN_MATCH: Final = TOKEN.fullmatch
_VALUE_MATCH: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch


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
        if type(name) is not bytes or type(value) is not bytes:
            name, value = _as_bytes(name, value)
        lower = _NAMES.get(name)
        if lower is None:
            lower = _checked_name(name)
        if _VALUE_MATCH(value) is None:
            raise LocalProtocolError(
                f"The header field {name!r} has a control character in its value: {value!r}."
            )
        checked.append((lower, value.strip(b" \t")))
    return checked


def _checked_name(name: bytes) -> bytes:
    if _TOKEN_MATCH(name) is None:
        raise LocalProtocolError(f"A header field's name is a token: found {name!r}.")
    lower = name.lower()
    if len(_NAMES) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
        _NAMES[name] = lower
    return lower


def _as_bytes(name: Any, value: Any) -> tuple[bytes, bytes]:
    if isinstance(name, (bytes, bytearray)) and isinstance(value, (bytes, bytearray)):
        return bytes(name), bytes(value)
    raise LocalProtocolError(
        f"A header field's name and value are byte strings: found {name!r} ="
        f" {value!r}, of types {type(name).__name__} and {type(value).__name__}."
    )
