"""`channels serve --reload`: a real process, real files, real sockets."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from channels.exceptions import InvalidOption
from channels.supervisor import reloading
from channels.supervisor.reloading import Watched
from tests.processes import PATIENCE_SECONDS, Child, free_port
from tests.tutorial.browsing import get

APPLICATION = """\
import asyncio
import threading
import time

import words


async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": words.GREETING.encode()})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/thread":
            # Not a daemon: the interpreter would wait for it at its end.
            threading.Thread(target=time.sleep, args=(600,)).start()
        while True:
            # It does not end when its client has gone, and not when it is cancelled.
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
"""


class Reloading(Child):
    """`channels serve --reload` in a folder with an application that says a word."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "pages.py").write_text(APPLICATION)
        self.say("first")
        serve = ("-m", "channels", "serve", "--reload", "--port", str(self.port), *words)
        super().__init__(*serve, "pages:application", cwd=folder)

    def say(self, word: str) -> None:
        """Change what the application says."""
        (self.folder / "words.py").write_text(f"GREETING = {word!r}\n")

    def wait_for_start(self, number: int) -> None:
        self.wait_for(r"Listening on TCP", number)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reloading]:
    with Reloading(tmp_path) as server:
        server.wait_for_start(1)
        yield server


def test_a_changed_file_is_served_anew(server: Reloading) -> None:
    assert get(server.port, "/") == (200, "first")
    server.say("second")
    server.wait_for_start(2)
    assert get(server.port, "/") == (200, "second")
    server.wait_for(r"Changed: words\.py\.  Starting anew\.")
    assert server.stop() == 0


def test_what_is_no_python_file_changes_nothing(server: Reloading) -> None:
    (server.folder / "notes.txt").write_text("nothing")
    server.say("second")
    server.wait_for_start(2)
    assert "notes.txt" not in server.output


@pytest.mark.parametrize("path", ["/socket", "/thread"])
def test_what_is_held_does_not_hold_it_up(server: Reloading, path: str) -> None:
    with connect(f"ws://127.0.0.1:{server.port}{path}") as client:
        server.say("second")
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(timeout=PATIENCE_SECONDS)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1012
        server.wait_for_start(2)
    assert get(server.port, "/") == (200, "second")


def test_a_broken_file_waits_for_the_next_change(server: Reloading) -> None:
    server.say("second")
    server.wait_for_start(2)
    (server.folder / "words.py").write_text("GREETING = \n")
    server.wait_for(r"SyntaxError")
    server.wait_for(r"It ended with status 1\.  Waiting for a change\.")
    server.say("third")
    server.wait_for_start(3)
    assert get(server.port, "/") == (200, "third")


def test_another_folder_is_watched_if_one_is_named(tmp_path: Path) -> None:
    folder, other = tmp_path / "site", tmp_path / "library"
    folder.mkdir()
    other.mkdir()
    with Reloading(folder, "--reload-dir", str(other)) as server:
        server.wait_for_start(1)
        server.say("second")
        (other / "module.py").write_text("")
        server.wait_for_start(2)
        assert get(server.port, "/") == (200, "second")
        assert "Changed: ../library/module.py." in server.output


def test_its_end_ends_the_server(server: Reloading) -> None:
    # The parent alone: a service manager, unlike a terminal, may not know of the child.
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        get(server.port, "/")


def test_its_end_does_not_wait_for_a_server_that_blocks(server: Reloading) -> None:
    (server.folder / "words.py").write_text("import time\nprint('blocks')\ntime.sleep(600)\n")
    server.wait_for("^blocks$")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    # It holds the output for as long as it lives.
    assert server.has_closed_output


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(InvalidOption, match="pip install watchfiles"):
        reloading.run_reloading(Watched(["true"], ["."], 1))


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidOption, match="'nowhere' cannot be watched: expected a folder"):
        Watched(["true"], ["nowhere"], 1)
