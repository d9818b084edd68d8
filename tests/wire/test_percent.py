from __future__ import annotations

from urllib.parse import unquote as standard

from hypothesis import given
from hypothesis import strategies as st

from channels.wire.percent import unquote


@given(st.lists(st.sampled_from([b"%", b"4", b"1", b"e", b"F", b"g", b"\xc3", b"%c3%a9"])))
def test_it_says_what_the_standard_library_says(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert unquote(data) == standard(data)


def test_what_is_no_escape_stays_and_what_is_no_text_is_replaced() -> None:
    assert unquote(b"/a%20%zz%") == "/a %zz%"
    assert unquote(b"%ff") == "\ufffd"
