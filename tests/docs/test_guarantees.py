"""Every test that the page of guarantees names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/development/guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_what_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?(def|class) {name}\b", (ROOT / path).read_text(), re.M)


def test_no_answer_is_without_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    answers = [row for row in rows if not row.startswith("| question")]
    assert answers
    assert [row for row in answers if "tests/" not in row.rsplit("|", 2)[1]] == []
