"""The tutorial as a reader follows it: the files that its code blocks write, part by part."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = sorted((ROOT / "docs" / "tutorial").glob("[0-9]-*.md"))
SETTINGS = "mysite/settings.py"

BLOCK = re.compile(
    r"^```\w+\n(?:# |<!-- )(?P<path>[\w/]+\.\w+)(?: -->)?\n(?P<code>.*?)^```$", re.M | re.S
)


def blocks(part: Path) -> list[tuple[str, str]]:
    """(path, content) of each block that is a file's or, for the settings, belongs into it."""
    return [(found["path"], found["code"]) for found in BLOCK.finditer(part.read_text())]


def assignments(source: str) -> dict[str, str]:
    """Name -> normalised value of each assignment at the top of a module."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.dump(node.value)
    return found


def write(project: Path, part: Path) -> None:
    """Do what a part tells the reader to do with its blocks."""
    for path, code in blocks(part):
        target = project / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path == SETTINGS:
            target.write_text(with_settings(target.read_text(), code))
        else:
            target.write_text(code)


def with_settings(settings: str, fragment: str) -> str:
    """Settings in which a fragment's names are replaced where they are, else put at the end."""
    lines = settings.splitlines()
    new = assignments(fragment).keys()
    for node in reversed(ast.parse(settings).body):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in new:
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join([*lines, fragment])
