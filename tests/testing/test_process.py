"""A server in a child process: it serves, it ends, and its errors reach the parent."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from channels.kit.types import Application, Receive, Scope, Send
from channels.testing.process import ServerProcess
from daphne.testing import DaphneProcess
from tests.processes import Child
from tests.tutorial.browsing import get

PARENT = """\
import sys, time
from channels.testing.process import ServerProcess
from tests.testing.test_process import get_application

if __name__ == "__main__":
    process = ServerProcess("127.0.0.1", get_application)
    process.start()
    print("child", process.pid, "listens on", process.wait_until_ready(), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(60)
"""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def get_application() -> Application:
    return application


def get_no_application() -> Application:
    raise LookupError("there is no application here")


def get_unportable_application() -> Application:
    class Unportable(Exception):
        """A class inside a function: pickle cannot find it."""

    raise Unportable("cannot be pickled")


def leave() -> None:
    os._exit(7)


def hang() -> None:
    time.sleep(600)


@pytest.fixture(params=["fork", "spawn"])
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_it_serves_and_stops(start_method: str) -> None:
    process = ServerProcess("localhost", get_application)
    process.start()
    try:
        port = process.wait_until_ready()
        assert get(port, "/") == (200, str(process.pid))
    finally:
        process.stop()
    assert process.exitcode == 0
    process.stop()


@pytest.mark.parametrize(
    ("get_it", "said"),
    [
        (get_no_application, "LookupError: there is no application here"),
        (get_unportable_application, "cannot be pickled"),
    ],
)
def test_an_error_in_the_child_comes_with_its_traceback(
    start_method: str, get_it: Callable[[], Application], said: str
) -> None:
    process = ServerProcess("127.0.0.1", get_it)
    process.start()
    with pytest.raises(RuntimeError, match=said) as failed:
        process.wait_until_ready()
    assert "Traceback" in str(failed.value)
    assert f"in {get_it.__name__}" in str(failed.value)
    process.stop()


def test_a_child_that_just_ends_is_noticed() -> None:
    process = ServerProcess("127.0.0.1", get_application, setup=leave)
    process.start()
    with pytest.raises(RuntimeError, match="ended with status 7"):
        process.wait_until_ready()
    process.stop()


def test_a_child_that_hangs_is_stopped() -> None:
    process = ServerProcess("127.0.0.1", get_application, setup=hang)
    process.start()
    with pytest.raises(TimeoutError, match=r"did not listen within 0\.2 seconds"):
        process.wait_until_ready(timeout=0.2)
    assert not process.is_alive()


async def accepts_and_stays(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await asyncio.to_thread(time.sleep, 600)
    elif scope["type"] == "http":
        await asyncio.Event().wait()


def get_staying_application() -> Application:
    return accepts_and_stays


@pytest.mark.parametrize("kind", [ServerProcess, DaphneProcess])
def test_sockets_and_threads_that_stay_do_not_hold_the_stop(kind: type[ServerProcess]) -> None:
    process = kind("127.0.0.1", get_staying_application)
    process.start()
    address = ("127.0.0.1", process.wait_until_ready())
    upgrade = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )
    # A WebSocket whose client reads nothing, and a request that gets no answer.
    with socket.create_connection(address) as first, socket.create_connection(address) as second:
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % upgrade)
        second.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 101"
        process.stop()
    # It ended by itself: a child that takes longer than `stop_timeout` is killed.
    assert process.exitcode == 0


@pytest.mark.parametrize("how", ["forgets", "wait"])
def test_a_parent_that_ends_takes_its_child_along(tmp_path: Path, how: str) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    root = Path(__file__).resolve().parent.parent.parent
    path = os.pathsep.join([str(root / "src"), str(root)])
    with Child("parent.py", how, cwd=tmp_path, env={"PYTHONPATH": path}) as parent:
        parent.wait_for(r"^child \d+ listens on \d+$")
        if how == "wait":
            os.kill(parent.process.pid, signal.SIGKILL)
        # The child shares the pipe, which closes once both have ended.
        parent.wait()
        assert parent.has_closed_output
