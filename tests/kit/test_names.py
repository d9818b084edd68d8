"""The grammar of names."""

from __future__ import annotations

import pytest

from channels.kit.names import GROUP_NAME, non_local_name

GOOD_GROUPS = ["a", "chat_lobby", "A-1.b", "a" * 99, "..", "-"]


@pytest.mark.parametrize("name", GOOD_GROUPS)
def test_good_group_names(name: str) -> None:
    assert GROUP_NAME.match(name)


def test_a_group_has_no_local_part() -> None:
    assert not GROUP_NAME.match("specific.abc!xyz")


@pytest.mark.parametrize(
    ("name", "expected"), [("a!b", "a!"), ("a!", "a!"), ("a", "a"), ("a.b!c-d", "a.b!")]
)
def test_non_local_name(name: str, expected: str) -> None:
    assert non_local_name(name) == expected
