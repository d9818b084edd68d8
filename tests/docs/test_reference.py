"""The reference pages are what the source says."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from tests.docs.sources import SOURCE, modules
from tests.docs.tutorial import ROOT

#: Modules whose names other modules have in public, deprecated ones, and what settings name alone.
INNER = ("backends/", "delay/apps", "legacy/", "test/http", "tests/", "wire/")
NAME = re.compile(r"^### (?P<name>\w+)$", re.M)
MODULES = [
    path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for path in modules()
    if path.startswith("channels/")
    and not path.removeprefix("channels/").startswith(INNER)
    and "\n__all__" in (SOURCE / path).read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_the_public_classes_and_functions_of_a_module_are_on_a_page(name: str) -> None:
    pages = (ROOT / "docs/reference").glob("*.md")
    shown = {found["name"] for page in pages for found in NAME.finditer(page.read_text())}
    module = importlib.import_module(name)
    public = {
        each
        for each in getattr(module, "__all__", ())
        if inspect.isclass(getattr(module, each)) or inspect.isfunction(getattr(module, each))
    }
    assert public <= shown


def test_the_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "script/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"Run script/docs and commit.\n{done.stdout}{done.stderr}"
