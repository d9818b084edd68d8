"""What the page of troubleshooting quotes is said: by this package, by Django, or by Python."""

from __future__ import annotations

import ast
import asyncio
import re
from functools import cache
from pathlib import Path

import asgiref
import django
import pytest

import channels
from tests.docs.sources import literals, texts
from tests.docs.tutorial import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
QUOTED = re.findall(r"^### (?P<message>.+)$", PAGE.read_text(), re.M)
#: Placeholders of logging and of %-formatting.
PLACE = re.compile(r"%(\.\d+)?[a-z]")
#: What a browser, the system, PostgreSQL and the interpreter say, and what Django puts together of
#: a status and a path: no source to look into here.
ELSEWHERE = {
    "Not Found: /ws/...",
    "WebSocket connection to '...' failed",
    "'NoneType' object has no attribute 'group_send'",
    "Too many open files",
    "sorry, too many clients already",
    "TimeoutError",
}
OTHERS = (
    *("django/core/handlers/asgi.py", "django/utils/asyncio.py", "django/apps/registry.py"),
    *("asgiref/sync.py", "asyncio/base_events.py", "channels/testing/live.py"),
)


@cache
def said() -> list[str]:
    """Every text of this package's, and of some files of what it builds on."""
    parts = (django, asgiref, asyncio, channels)
    packages = {module.__name__: Path(module.__path__[0]) for module in parts}
    found = list(texts())
    for name in OTHERS:
        package, _, path = name.partition("/")
        found.extend(literals(ast.walk(ast.parse((packages[package] / path).read_text()))))
    return [PLACE.sub("{}", text) for text in found]


def is_said(message: str) -> bool:
    """True if one text has the words of a message in order, with values where it has "..."."""
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.S)
    return any(pattern.search(text) for text in said())


@pytest.mark.parametrize("message", [text for text in QUOTED if text not in ELSEWHERE])
def test_a_quoted_message_stands_in_the_source(message: str) -> None:
    assert is_said(message)


def test_messages_of_others_are_quoted() -> None:
    assert set(QUOTED) >= ELSEWHERE


def test_no_message_is_quoted_twice() -> None:
    assert len(QUOTED) == len(set(QUOTED))
