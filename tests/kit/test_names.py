"""The grammar of names."""

from __future__ import annotations

import pytest

from channels.kit.names import GROUP_NAME, is_channel_name, non_local_name

GOOD_GROUPS = ["a", "chat_lobby", "A-1.b", "a" * 99, "..", "-"]
GOOD_CHANNELS = [*GOOD_GROUPS, "specific.abc!xyz", "specific.abc!", "a!b-c.d_e", "a!é"]
BAD_CHANNELS = [
    "",
    "a" * 100,
    "a b",
    "a\n",
    "a!b\n",
    "ä",
    "a!b!c",
    "!a",
    "a?b",
    "a/b",
    "a\x00",
    None,
    7,
    b"bytes",
]


@pytest.mark.parametrize("name", GOOD_CHANNELS)
def test_good_channel_names(name: str) -> None:
    assert is_channel_name(name)


@pytest.mark.parametrize("name", GOOD_GROUPS)
def test_good_group_names(name: str) -> None:
    assert GROUP_NAME.match(name)


@pytest.mark.parametrize("name", BAD_CHANNELS)
def test_bad_names(name: object) -> None:
    assert not is_channel_name(name)


def test_a_group_has_no_local_part() -> None:
    assert not GROUP_NAME.match("specific.abc!xyz")


@pytest.mark.parametrize(
    ("name", "expected"), [("a!b", "a!"), ("a!", "a!"), ("a", "a"), ("a.b!c-d", "a.b!")]
)
def test_non_local_name(name: str, expected: str) -> None:
    assert non_local_name(name) == expected
