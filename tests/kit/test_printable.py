"""A client's text in a line of a log."""

from __future__ import annotations

import sys

import pytest

from channels.kit.printable import PRINTABLE_LIMIT, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/chat/room 1/", "/chat/room 1/"),
        ("/chät/房间/'\"", "/chät/房间/'\""),
        ("a\r\nb\tc\0", r"a\r\nb\tc\x00"),
        ("\x1b[31m\x7f\x9b\x85", r"\x1b[31m\x7f\x9b\x85"),
        ("\u2028\u2029\u202e\u2066\u200b\ufeff", r"\u2028\u2029\u202e\u2066\u200b\ufeff"),
        ("\u00a0\u3000", r"\xa0\u3000"),
        ("\ud800", r"\ud800"),
        (r"\n", r"\\n"),
        ("", ""),
    ],
)
def test_what_is_not_shown_as_itself_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_any_character_leaves_one_line_that_every_encoding_of_unicode_can_write() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every, len(every))
    assert shown.splitlines() == [shown]
    assert shown.isprintable()
    assert shown.encode("utf-8").decode() == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * PRINTABLE_LIMIT) == "x" * PRINTABLE_LIMIT
    assert printable("x" * 1_000_000) == "x" * PRINTABLE_LIMIT + "..."
    assert printable("\n\nab", 3) == r"\n\na..."
