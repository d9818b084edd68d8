"""What the page of guarantees says has a row in the matrix of tests, and the tests exist."""

from __future__ import annotations

import re

import pytest

from tests.docs.sources import sections
from tests.docs.tutorial import ROOT

DECOUPLED = sections(ROOT / "docs/topics/decoupled.md")
#: Section of the matrix -> what the users' pages say of it.
PAGE = sections(ROOT / "docs/topics/guarantees.md") | {
    "Connections that outlive code": DECOUPLED["What happens when something fails"]
}
MATRIX_PAGE = ROOT / "docs/development/guarantees.md"
MATRIX = sections(MATRIX_PAGE)
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", MATRIX_PAGE.read_text())))
LOST = "| what happens | what is lost | who is told |\n|---|---|---|\n"
PROVEN = "| what happens | answer | test |\n|---|---|---|\n"
#: A process that ends takes its memory along: nothing to try.
WITHOUT_TESTS = {"In memory"}


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of each row of the tables with this head."""
    return [
        line.removeprefix("| ").removesuffix(" |").split(" | ")
        for table in text.split(head)[1:]
        for line in table.partition("\n\n")[0].splitlines()
    ]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_what_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?(def|class) {name}\b", (ROOT / path).read_text(), re.M)


@pytest.mark.parametrize("section", MATRIX)
def test_no_answer_is_without_its_test(section: str) -> None:
    found = rows(MATRIX[section], PROVEN)
    assert found
    assert [happens for happens, _, tests in found if "`tests/" not in tests] == []


@pytest.mark.parametrize("section", [title for title in PAGE if title not in WITHOUT_TESTS])
def test_what_can_happen_to_a_layer_is_in_the_matrix_of_tests(section: str) -> None:
    told = [happens for happens, _, _ in rows(PAGE[section], LOST)]
    assert told
    assert set(told) <= {happens for happens, _, _ in rows(MATRIX[section], PROVEN)}


def test_every_layer_has_its_table() -> None:
    page = {title for title in PAGE if rows(PAGE[title], LOST)}
    assert page - WITHOUT_TESTS == MATRIX.keys() - {"Sends on commit"}
