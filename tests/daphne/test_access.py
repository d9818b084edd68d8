"""The lines of the access log."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from daphne.access import AccessLogGenerator

STAMP = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\]"


@pytest.mark.parametrize(
    ("protocol", "action", "more", "expected"),
    [
        ("http", "complete", {"method": "GET", "status": 200, "size": 7}, '"GET /p" 200 7'),
        ("websocket", "connecting", {}, '"WSCONNECTING /p" - -'),
        ("websocket", "connected", {}, '"WSCONNECT /p" - -'),
        ("websocket", "rejected", {}, '"WSREJECT /p" - -'),
        ("websocket", "disconnected", {}, '"WSDISCONNECT /p" - -'),
    ],
)
def test_lines(protocol: str, action: str, more: dict[str, Any], expected: str) -> None:
    stream = io.StringIO()
    AccessLogGenerator(stream)(protocol, action, {"client": "a:1", "path": "/p", **more})
    assert re.fullmatch(f"a:1 - - {STAMP} {re.escape(expected)}\n", stream.getvalue())


def test_other_happenings_are_not_logged() -> None:
    stream = io.StringIO()
    AccessLogGenerator(stream)("http", "connecting", {"client": "a:1", "path": "/p"})
    assert stream.getvalue() == ""


def test_a_path_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    AccessLogGenerator(stream)(
        "websocket", "connected", {"client": None, "path": '/a"\r\n1.2.3.4 - -'}
    )
    assert stream.getvalue().count("\n") == 1
    assert r"/a\"\r\n1.2.3.4" in stream.getvalue()
