"""The scorecard's rows exist, are documented, and their numbers are read right."""

from __future__ import annotations

import re

import pytest
from compliance.run import ROOT, ROWS, Row, count

README = (ROOT / "compliance" / "README.md").read_text()


def test_each_row_is_documented_and_no_other() -> None:
    table = re.findall(r"^\| ([A-Z]\d+(?:, [A-Z]\d+)*) \|", README, re.M)
    assert [name for names in table for name in names.split(", ")] == [row.id for row in ROWS]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_what_a_row_runs_is_there(row: Row) -> None:
    module, *words = row.words
    if module != "pytest":
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    for word in words:
        if word.startswith("tests/"):
            assert (ROOT / word).exists(), word
        elif word.startswith("compliance."):
            assert (ROOT / f"{word.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("...\n35 passed in 7.00s\n", "0 of 35 failed"),
        ("E  3 failed\n2 failed, 33 passed, 4 skipped in 7.00s", "2 of 35 failed, 4 skipped"),
        ("1 failed, 2 passed, 1 error in 0.10s", "2 of 4 failed"),
        ("3 errors in 0.10s", "3 of 3 failed"),
        ("", "0 of 0 failed"),
    ],
)
def test_the_number_of_a_row_of_tests(output: str, number: str) -> None:
    assert count(output) == number
