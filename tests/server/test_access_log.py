"""Lines of the access log: their form, and that nothing can break out of one."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime

import pytest

from channels.kit.types import Address
from channels.server.access import AccessRecord, Kind
from channels.server.access_log import AccessLog, access_line, client_text, safe

#: host - - [time] "METHOD path" status size seconds
LINE = re.compile(
    r'(\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}(?::\d\d){3}\] "(\S+) (.*)" (\S+) (\S+)(?: (\d\.\d{3}))?'
)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("http", "GET"),
        ("websocket.connecting", "WSCONNECTING"),
        ("websocket.connected", "WSCONNECT"),
        ("websocket.rejected", "WSREJECT"),
        ("websocket.disconnected", "WSDISCONNECT"),
    ],
)
def test_a_line_for_each_kind(kind: Kind, word: str, caplog: pytest.LogCaptureFixture) -> None:
    record = AccessRecord(kind, "GET", "/a?b", 200, 5, ("1.2.3.4", 5), 0.1)
    with caplog.at_level(logging.INFO, "test.access"):
        AccessLog(logging.getLogger("test.access"))(record)
    (line,) = caplog.messages
    match = LINE.fullmatch(line)
    assert match is not None
    assert match.groups() == ("1.2.3.4:5", word, "/a?b", "200", "5", "0.100")


def test_a_refused_request_has_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    record = AccessRecord("http", "GET", "/a", 431, 0, None, 0.0, 'Field "x" is too long.')
    with caplog.at_level(logging.INFO, "test.access"):
        AccessLog(logging.getLogger("test.access"))(record)
    assert caplog.messages[0].endswith(r' "GET /a" 431 0 0.000 "Field \"x\" is too long."')


def test_lines_of_json(caplog: pytest.LogCaptureFixture) -> None:
    record = AccessRecord("http", "GET", "/a\n", 431, 7, ("::1", 5), 0.25, "Too long.")
    with caplog.at_level(logging.INFO, "test.access"):
        AccessLog(logging.getLogger("test.access"), is_json=True)(record)
    (line,) = caplog.messages
    assert line.isprintable()
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found == {
        "client": "[::1]:5",
        "kind": "http",
        "method": "GET",
        "path": "/a\n",
        "status": 431,
        "size": 7,
        "duration": 0.25,
        "reason": "Too long.",
    }


def test_what_is_not_known_is_a_hyphen() -> None:
    assert access_line(None, "WSCONNECTING", "/").endswith('"WSCONNECTING /" - -')
    assert access_line("", "GET", "/").startswith("- - - [")


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (("1.2.3.4", 5), "1.2.3.4:5"),
        (("::1", 5), "[::1]:5"),
        (("/run/socket", None), "/run/socket"),
        ("already text", "already text"),
        (None, "-"),
    ],
)
def test_clients(client: Address | str | None, text: str) -> None:
    assert client_text(client) == text


def test_no_character_breaks_out_of_a_line() -> None:
    # CVE-2020-7694: an escape sequence in a path moved the terminal's cursor.
    for code in (*range(0x300), *range(0x2000, 0x2070), 0xD800, 0xFEFF, 0xE0001):
        line = access_line(("1.2.3.4", 5), "GET", f"/a{chr(code)}b", 200, 5)
        assert line.splitlines() == [line], hex(code)
        match = LINE.fullmatch(line)
        assert match is not None, hex(code)
        assert match[3].isprintable(), hex(code)
        assert '"' not in match[3].replace('\\"', ""), hex(code)


def test_what_is_escaped_can_be_told_from_what_was_sent() -> None:
    assert safe("\x1b[2J") == r"\x1b[2J"
    assert safe("a\nb") == r"a\nb"
    assert safe("\u202eabc") == r"\u202eabc"
    assert safe(r"\x1b[2J") == r"\\x1b[2J"
