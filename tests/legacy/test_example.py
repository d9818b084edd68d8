"""`examples/channels1`, by the three commands of its README."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.processes import Child
from tests.tutorial.browsing import PATIENCE_SECONDS, get
from tests.tutorial.project import Project

ROOT = Path(__file__).resolve().parents[2]

# Its site takes seconds to set up.
pytestmark = pytest.mark.xdist_group("example of Channels 1")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the site listens, from a copy of its folder."""
    folder = tmp_path_factory.mktemp("example") / "channels1"
    ignored = shutil.ignore_patterns("*.sqlite3", "__pycache__")
    shutil.copytree(ROOT / "examples" / "channels1", folder, ignore=ignored)
    project = Project(folder, "project")
    assert "No changes detected" in project.manage("makemigrations", "--check", "--dry-run")
    project.manage("migrate")
    with Child("manage.py", "runserver", "0", "--noreload", cwd=folder) as server:
        yield server.wait_for_port()


def open_socket(port: int, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}{path}", open_timeout=PATIENCE_SECONDS)


def test_a_room(port: int) -> None:
    assert '<a href="/lobby/">' not in get(port, "/")[1]
    assert "room.js" in get(port, "/lobby/")[1]
    assert get(port, "/static/chat/room.js")[0] == 200
    with open_socket(port, "/chat/lobby/") as anna, open_socket(port, "/chat/lobby/") as bob:
        for nothing in ("no JSON", "[]", '{"handle": 5, "message": "x"}', '{"handle": "a"}'):
            anna.send(nothing)
        anna.send(json.dumps({"handle": " anna ", "message": "<b>hi</b>"}))
        for client in (anna, bob):
            heard = json.loads(client.recv(PATIENCE_SECONDS))
            assert (heard["handle"], heard["message"]) == ("anna", "<b>hi</b>")
            assert re.fullmatch(r"\d\d:\d\d", heard["timestamp"])
    assert "&lt;b&gt;hi&lt;/b&gt;" in get(port, "/lobby/")[1]
    assert '<a href="/lobby/">' in get(port, "/")[1]


def test_a_room_that_is_none(port: int) -> None:
    with pytest.raises(Exception, match="HTTP 403"):
        open_socket(port, "/chat/nowhere/")


def test_the_live_blog(port: int) -> None:
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', get(port, "/liveblog/")[1])
    assert token
    with open_socket(port, "/liveblog/") as reader:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        body = urlencode({"content": "News", "csrfmiddlewaretoken": token[1]})
        cookie = f"csrftoken={token[1]}"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie}
        connection.request("POST", "/liveblog/", body, headers)
        assert connection.getresponse().status == 302
        connection.close()
        assert json.loads(reader.recv(PATIENCE_SECONDS)) == {"id": 1, "content": "News"}
