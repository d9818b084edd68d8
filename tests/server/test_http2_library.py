"""HTTP/2 is an extra: who gets it, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from channels.exceptions import InvalidOption
from channels.server.endpoints import Endpoint, Tls
from channels.server.http2 import Http2Session
from channels.server.http2_library import load_http2
from channels.server.options import ServerOptions

CLEAR = [Endpoint("tcp")]
SECURE = [*CLEAR, Endpoint("tcp", tls=Tls("key.pem", "certificate.pem"))]


@pytest.mark.parametrize(
    ("asked", "endpoints", "is_offered"),
    [
        (None, CLEAR, False),
        (None, SECURE, True),
        (True, CLEAR, True),
        (False, SECURE, False),
    ],
)
def test_who_gets_it(asked: bool | None, endpoints: list[Endpoint], is_offered: bool) -> None:
    found = load_http2(ServerOptions(http2=asked), endpoints)
    assert found is (Http2Session if is_offered else None)


def test_who_does_not_ask_does_not_import_it() -> None:
    program = "import sys, channels.cli; sys.exit('h2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_library_only_who_asks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load_http2(ServerOptions(), SECURE) is None
    with pytest.raises(InvalidOption, match=r"pip install h2"):
        load_http2(ServerOptions(http2=True), CLEAR)
