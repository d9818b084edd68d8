"""What may stand in a header field."""

from __future__ import annotations

import pytest

from channels.exceptions import LocalProtocolError
from channels.wire.fields import checked_fields, is_token


def test_names_come_out_in_lower_case_and_order_is_kept() -> None:
    fields = [(b"X-B", b"1"), [b"x-a", bytearray(b" 2\t")], (b"X-B", b"\xe9")]
    assert checked_fields(fields) == [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"\xe9")]


@pytest.mark.parametrize("byte", [*range(9), *range(10, 32), 127])
def test_no_control_character_enters_a_value(byte: int) -> None:
    with pytest.raises(LocalProtocolError, match="control character"):
        checked_fields([(b"x", b"a" + bytes([byte]) + b"b")])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xe9", b"a(", b"a\n"])
def test_a_name_is_a_token(name: bytes) -> None:
    assert not is_token(name)
    with pytest.raises(LocalProtocolError, match="token"):
        checked_fields([(name, b"v")])


@pytest.mark.parametrize("field", [("x", b"v"), (b"x", "v"), (b"x", 1), b"x", (b"x",), None])
def test_a_field_is_a_pair_of_byte_strings(field: object) -> None:
    with pytest.raises(LocalProtocolError):
        checked_fields([field])
