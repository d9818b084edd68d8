"""The process ends in the stated time, whatever of the application still runs."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import PATIENCE_SECONDS, Child

SITE = """\
import asyncio
import atexit
import sys
import threading
import time

from asgiref.sync import sync_to_async
from channels.generic.websocket import WebsocketConsumer
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.urls import path as url

settings.configure(SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
atexit.register(lambda: print("atexit ran", flush=True))


def view_that_sleeps(request):
    print("called", flush=True)
    time.sleep(600)


def view_that_streams(request):
    def endless():
        print("called", flush=True)
        while True:
            time.sleep(0.01)
            yield b"x"

    return StreamingHttpResponse(endless())


urlpatterns = [url("view", view_that_sleeps), url("stream", view_that_streams)]
django_application = get_asgi_application()


class Sleeper(WebsocketConsumer):
    def connect(self):
        self.accept()
        print("called", flush=True)
        time.sleep(600)


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError
    if scope["type"] == "websocket":
        return await Sleeper.as_asgi()(scope, receive, send)
    path = scope["path"]
    if path in ("/view", "/stream"):
        return await django_application(scope, receive, send)
    print("called", flush=True)
    if path == "/thread":
        await asyncio.to_thread(time.sleep, 600)
    if path == "/own":
        threading.Thread(target=time.sleep, args=[600], name="mine").start()
    if path == "/loop":
        time.sleep(600)
    while path == "/swallow":
        try:
            await asyncio.sleep(600)
        except BaseException:
            pass


async def waits(scope, receive, send):
    await receive()
    print("starts", flush=True)
    await asyncio.sleep(600)


async def waits_in_a_thread(scope, receive, send):
    await receive()
    print("starts", flush=True)
    await asyncio.to_thread(time.sleep, 600)


async def fails(scope, receive, send):
    await receive()
    threading.Thread(target=time.sleep, args=[600], name="mine").start()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def page(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})
"""

IMPORTS_FOR_EVER = 'import time\nprint("starts", flush=True)\ntime.sleep(600)\n'

#: What each path leaves running, as the log names it.
LEFT = {
    "/view": r"thread '\S+' at \S+site1\.py:\d+ in view_that_sleeps",
    "/stream": r"thread '\S+' at \S+site1\.py:\d+ in endless",
    "/thread": r"thread '(asyncio|uvloop)_0'",
    "/own": r"thread 'mine'",
    "/loop": r"thread 'MainThread' at \S+site1\.py:\d+ in application",
    "/websocket": r"thread 'channels-sync_0' at \S+site1\.py:\d+ in connect",
}

UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site1.py").write_text(SITE)
    (tmp_path / "site2.py").write_text(IMPORTS_FOR_EVER)
    return tmp_path


def start(folder: Path, command: str, application: str = "site1:application") -> Child:
    words = {"serve": ["channels", "serve", "--shutdown-timeout", "0.1"], "daphne": ["daphne"]}
    return Child("-m", *words[command], application, "-p", "0", cwd=folder)


@contextmanager
def called(server: Child, path: str) -> Iterator[None]:
    """A client whose request is being handled."""
    with socket.create_connection(("127.0.0.1", server.wait_for_port())) as client:
        upgrade = UPGRADE if path == "/websocket" else b""
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path.encode(), upgrade))
        server.wait_for("^called$")
        yield


@pytest.mark.parametrize(
    ("command", "number", "path"),
    [("serve", signal.SIGTERM, path) for path in (*LEFT, "/swallow")]
    + [("daphne", signal.SIGINT, path) for path in ("/view", "/websocket", "/swallow")],
)
def test_the_second_signal_ends_it_at_once(
    folder: Path, command: str, number: signal.Signals, path: str
) -> None:
    with start(folder, command) as server, called(server, path):
        server.process.send_signal(number)
        if path == "/loop":
            # Its loop says nothing; and two signals of one number at once may be one to a process.
            number = signal.SIGINT
        else:
            server.wait_for("Stopping: waiting")
        server.process.send_signal(number)
        assert server.wait() == 0
    if path in LEFT:
        assert re.search(
            rf"\d s after the signal to stop; still running: .*{LEFT[path]}", server.output
        )
    assert "atexit ran" in server.output
    assert "Traceback" not in server.output


@pytest.mark.parametrize("path", ["/view", "/loop", "/swallow"])
def test_one_signal_ends_it_in_the_stated_time(folder: Path, path: str) -> None:
    with start(folder, "serve") as server, called(server, path):
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    if path in LEFT:
        found = re.search(r"Ending process \d+ (\S+) s after .*" + LEFT[path], server.output)
        # 0.1 for requests, 2 for the lifespan, 6 for the rest; one of them for the log.
        assert found is not None, server.output
        assert 7.0 <= float(found[1]) < 7.1 + PATIENCE_SECONDS / 2
    assert "atexit ran" in server.output


@pytest.mark.parametrize(
    ("command", "number"), [("serve", signal.SIGTERM), ("daphne", signal.SIGINT)]
)
@pytest.mark.parametrize(
    "application", ["site1:waits", "site1:waits_in_a_thread", "site2:application"]
)
def test_a_signal_ends_it_while_the_application_starts(
    folder: Path, command: str, application: str, number: signal.Signals
) -> None:
    with start(folder, command, application) as server:
        server.wait_for("^starts$")
        server.process.send_signal(number)
        assert server.wait() == 0
    assert "Traceback" not in server.output
    assert "Listening" not in server.output


def test_a_thread_does_not_hold_a_process_that_could_not_start(folder: Path) -> None:
    with start(folder, "serve", "site1:fails") as server:
        assert server.wait() == 1
    assert "error: The application failed to start: no database" in server.output
    assert re.search(r"Ending process \d+; still running: thread 'mine'", server.output)


def test_start_and_stop_are_logged(folder: Path) -> None:
    with start(folder, "serve", "site1:page") as server:
        port = server.wait_for_port()
        pid = server.process.pid
        server.wait_for(rf"Started channels \S+, process {pid}: site1:page at 127\.0\.0\.1:{port}$")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    server.wait_for(r"Stopping: waiting at most 0\.1 s for 0 requests and 0 WebSockets\.$")
    server.wait_for(r"Stopped after \d+\.\d s\.$")


class TestReadiness:
    @pytest.mark.parametrize("kind", ["path", "abstract"])
    @pytest.mark.parametrize("command", ["serve", "daphne"])
    def test_the_supervisor_hears_of_it(self, folder: Path, command: str, kind: str) -> None:
        address = str(folder / "notify") if kind == "path" else f"\0{folder}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind(address)
            supervisor.settimeout(PATIENCE_SECONDS)
            shown = address.replace("\0", "@")
            words = ["-m", *(["channels", "serve"] if command == "serve" else ["daphne"])]
            words += ["site1:page", "-p", "0"]
            with Child(*words, cwd=folder, env={"NOTIFY_SOCKET": shown}) as server:
                assert supervisor.recv(100) == b"READY=1"
                # It listens: nothing has to be waited for.
                found = re.search(r"Listening on \D+([\d.]+):(\d+)$", server.output, re.MULTILINE)
                port = server.wait_for_port() if found is None else int(found[2])
                socket.create_connection(("127.0.0.1", port)).close()
                server.process.send_signal(signal.SIGTERM)
                assert supervisor.recv(100) == b"STOPPING=1"
                assert server.wait() == 0

    def test_it_is_not_ready_while_the_application_starts(self, folder: Path) -> None:
        address = str(folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind(address)
            words = ["-m", "channels", "serve", "site1:waits", "-p", "0"]
            with Child(*words, cwd=folder, env={"NOTIFY_SOCKET": address}) as server:
                server.wait_for("^starts$")
                server.process.send_signal(signal.SIGTERM)
                assert server.wait() == 0
            supervisor.setblocking(False)
            with pytest.raises(BlockingIOError):
                supervisor.recv(100)

    def test_a_supervisor_that_is_gone_is_told_in_one_line(self, folder: Path) -> None:
        words = ["-m", "channels", "serve", "site1:page", "-p", "0"]
        env = {"NOTIFY_SOCKET": str(folder / "nobody")}
        with Child(*words, cwd=folder, env=env) as server:
            server.wait_for("Cannot send 'READY=1' to NOTIFY_SOCKET: .*No such file")
            assert server.stop() == 0
