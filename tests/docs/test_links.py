"""Every link inside the documentation leads somewhere, to the heading too."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.tutorial import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
IMAGE = re.compile(r'(?:src|srcset)="(?P<target>[^"]+)"')
HEADING = re.compile(r"^#+ (?P<text>.+)$", re.M)
OUTSIDE = ("https://", "http://", "mailto:")


@cache
def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


@cache
def anchors(page: Path) -> set[str]:
    """The names that code hosts give to a page's headings."""
    names = (
        re.sub(r"[^\w\- ]", "", found["text"].lower()) for found in HEADING.finditer(prose(page))
    )
    return {name.replace(" ", "-") for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = prose(page)
    for found in [*LINK.finditer(text), *IMAGE.finditer(text)]:
        target = found["target"]
        if target.startswith(OUTSIDE):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: no such file"
        assert there.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        for found in LINK.finditer(prose(page)):
            if not found["target"].startswith(OUTSIDE):
                waiting.append((page.parent / found["target"].partition("#")[0]).resolve())
    assert set(PAGES) <= reached
