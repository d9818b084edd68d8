"""The same chat behaves alike under our server, uvicorn and hypercorn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conversation import Transcript, transcript

ROOT = Path(__file__).resolve().parents[2]

ANONYMOUS = '{"you are": "AnonymousUser"}'


def said(text: str, by: str = "AnonymousUser") -> str:
    return json.dumps({"by": by, "text": text})


#: What every server lets clients hear, step by step.
EXPECTED: Transcript = {
    "get": [200, "GET /hello/?a=1&b=%20%C3%A9", "1", "27"],
    "head": [200, "", "12"],
    "escaped path": 404,
    "upload": [200, '{"bytes": 200000, "type": ""}'],
    "chunked upload": [200, '{"bytes": 50000, "type": ""}'],
    "cookies": ["a=1; Path=/", "b=2; Path=/"],
    "stream": [200, "part 0;part 1;part 2;part 3;part 4;"],
    "not found": 404,
    "failing view": 500,
    "after a failure": [200, "GET /hello/"],
    "events": [
        "text/event-stream",
        *("id: 1", "data: event 1", ""),
        *("id: 2", "data: event 2", ""),
        *("id: 3", "data: event 3", ""),
    ],
    "events resumed": ["id: 3", "data: event 3", ""],
    "anonymous": [[ANONYMOUS]] * 3,
    "group": [[said("hello")]] * 2,
    "order": [[said(str(number)) for number in range(20)]] * 2,
    "direct": [['{"direct": "r\\u00e9ady"}']] * 2,
    "from http": [202, "sent"],
    "news": [[said("news", by="outside")]] * 2,
    "after one left": [said("alone")],
    "other room heard nothing else": [said("red")],
    "log in": [200, "welcome"],
    "known": ['{"you are": "ada"}'],
    "speaks": [said("it is me", by="ada")],
    "session kept": [200, '{"rooms": ["green"]}'],
    "log out": [200, "goodbye"],
    "unknown again": [ANONYMOUS],
    "subprotocol": "chat.v2",
    "echo": True,
    "closed by consumer": [4321, "as asked"],
    "no subprotocol": None,
    "consumer raises": [1011, ""],
    "sync consumer": ["/ws/sync/", "LOUD"],
    "refused": 403,
    "raises in connect": 500,
    "unrouted": 403,
    "accept headers": ["blue", "seen=1"],
    "closed at once": [3001, ""],
    "farewells": [200, "[4321, 4002]"],
}

#: (server, step) -> what is heard there instead.
DIFFERENCES: dict[tuple[str, str], Any] = {
    # uvicorn ends the connection of a consumer that raised without a close frame.
    ("uvicorn", "consumer raises"): ["cut", ""],
    # hypercorn tells the application 1000 and 1006 whatever the close frames said.
    ("hypercorn", "farewells"): [200, "[1000, 1006]"],
}


def converse(server: str, folder: Path) -> Transcript:
    """Start the server, talk to it, stop it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.serve", server, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
                "DJANGO_SETTINGS_MODULE": "tests.interop.settings",
                "INTEROP_DATABASE": str(folder / "interop.sqlite3"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        return transcript(port)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.parametrize("server", ["channels", "uvicorn", "hypercorn"])
def test_same_transcript(server: str, tmp_path: Path) -> None:
    heard = converse(server, tmp_path)
    expected = {step: DIFFERENCES.get((server, step), what) for step, what in EXPECTED.items()}
    assert heard == expected
