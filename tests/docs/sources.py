"""The package's source as the tests of the reference read it: names, numbers and texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.docs.tutorial import ROOT

SOURCE = ROOT / "src"
SECTION = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!## ).*\n)*)", re.M)
#: A row's first cell; the row above the dashes is the table's head.
ROW = re.compile(r"^\| `?(?P<key>[\w.-]+)`? \|.*\n(?!\|-)", re.M)


@cache
def modules() -> dict[str, ast.Module]:
    """Path below src -> parsed module.  Tests that the package ships for others are left out."""
    return {
        str(path.relative_to(SOURCE)): ast.parse(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[1] != "testing"
    }


def nodes(below: str = "") -> Iterator[ast.AST]:
    """Every node of the modules whose path begins with `below`."""
    for path, tree in modules().items():
        if path.startswith(below):
            yield from ast.walk(tree)


def calls(name: str, below: str = "") -> Iterator[ast.Call]:
    """Calls of a function or method of this name."""
    for node in nodes(below):
        if isinstance(node, ast.Call):
            function = node.func
            called = getattr(function, "attr", getattr(function, "id", ""))
            if called == name:
                yield node


def first_texts(name: str, below: str = "") -> set[str]:
    """What stands as a text in the first argument of calls of `name`."""
    return {
        given.value
        for call in calls(name, below)
        for given in call.args[:1]
        if isinstance(given, ast.Constant) and isinstance(given.value, str)
    }


def texts() -> Iterator[str]:
    """Every text in the source."""
    yield from literals(nodes())


def literals(found: Iterable[ast.AST]) -> Iterator[str]:
    """The texts among some nodes; in an f-string each value is a "{}"."""
    for node in found:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )


def sections(page: Path) -> dict[str, str]:
    """Heading of the second level -> what stands below it."""
    return {found["title"]: found["body"] for found in SECTION.finditer(page.read_text())}
