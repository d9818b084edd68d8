"""`channels serve --workers N`: real processes, real signals, real sockets."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.processes import PATIENCE_SECONDS, Child, free_port
from tests.tutorial.browsing import get

APPLICATION = """\
import asyncio
import os
import time

from channels.layers import get_channel_layer
from channels.layers.registry import channel_layers

import words

if words.LAYER:
    channel_layers.configure({"default": {
        "BACKEND": "channels.layers." + words.LAYER,
        "CONFIG": {"prefix": os.getcwd()} if words.LAYER.startswith("Local") else {},
    }})
BALLAST = []


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if words.GREETING == "unwilling":
            return await send({"type": "lifespan.startup.failed", "message": "no database"})
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if words.GREETING == "slow to stop":
            print("stopping slowly", flush=True)
            await asyncio.sleep(600)
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        if scope["path"] == "/hang":
            time.sleep(600)
        if scope["path"] == "/grow":
            BALLAST.append(bytearray(os.urandom(1024)) * (200 * 1024))
        text = f"{words.GREETING} {os.getpid()}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})
    else:
        await websocket(receive, send)


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    layer = get_channel_layer()
    if layer is not None:
        name = await layer.new_channel()
        await layer.group_add("all", name)
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (await receive())["type"] == "websocket.receive":
        if layer is not None:
            await layer.group_send("all", {"type": "news"})
            await layer.receive(name)
        await send({"type": "websocket.send", "text": str(os.getpid())})

"""

#: What systemd does for a socket unit.
STARTER = """\
import os
import socket
import sys

passed = socket.create_server(("127.0.0.1", 0))
os.dup2(passed.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
serve = ["-m", "channels", "serve", "--workers", "2", "--endpoint", "systemd:index=0"]
os.execv(sys.executable, [sys.executable, *serve, "pages:application"])
"""


class Served(Child):
    """`channels serve --workers` in a folder with an application that says a word and its pid."""

    def __init__(
        self, folder: Path, *words: str, workers: int = 2, layer: str = "", greeting: str = "first"
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.layer = layer
        (folder / "pages.py").write_text(APPLICATION)
        self.say(greeting)
        serve = ("-m", "channels", "serve", "--workers", str(workers), "--port", str(self.port))
        super().__init__(*serve, *words, "pages:application", cwd=folder)

    def say(self, word: str) -> None:
        """Change what the application says."""
        (self.folder / "words.py").write_text(f"GREETING = {word!r}\nLAYER = {self.layer!r}\n")

    def wait_for_start(self) -> None:
        self.wait_for(r"Started channels .* with \d+ workers: pages:application at ")

    def wait_for_worker(self, number: int, times: int = 1) -> int:
        """The process of a worker that serves, the `times`-th that had this number."""
        return int(self.wait_for(rf"Worker {number} \(process (\d+)\) serves\.", times)[1])

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor alone."""
        self.process.send_signal(number)

    @contextmanager
    def open_in(self, pid: int) -> Iterator[ClientConnection]:
        """A WebSocket that this worker serves."""
        for _ in range(200):
            with connect(f"ws://127.0.0.1:{self.port}/", open_timeout=PATIENCE_SECONDS) as client:
                if int(client.recv(PATIENCE_SECONDS)) == pid:
                    yield client
                    return
        raise AssertionError(f"{pid} took none of 200 connections:\n{self.output}")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def said_by(server: Served, path: str = "/") -> tuple[str, int]:
    status, text = get(server.port, path)
    assert status == 200
    word, _, pid = text.rpartition(" ")
    return word, int(pid)


class Traffic:
    """Requests one after the other, until it is left; all must be answered."""

    def __init__(self, port: int, *, keeps_alive: bool) -> None:
        self._port = port
        self._keeps_alive = keeps_alive
        self._stopped = threading.Event()
        self._answers = threading.Condition()
        self.texts: list[str] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE_SECONDS)

    def wait_for(self, is_enough: Callable[[list[str]], bool]) -> None:
        with self._answers:
            assert self._answers.wait_for(lambda: is_enough(self.texts), PATIENCE_SECONDS)

    def _run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        while not self._stopped.is_set():
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                text = response.read().decode()
                if response.status != 200:
                    self.failures.append(text)
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            with self._answers:
                self.texts.append(text)
                self._answers.notify_all()
            if not self._keeps_alive:
                connection.close()
        connection.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, "--drain-timeout", "1") as server:
        server.wait_for_start()
        yield server


def test_each_worker_answers_on_the_one_socket(server: Served) -> None:
    served = server.output.index("Started channels")
    assert server.output[:served].count(" serves.") == 2, "ready before every worker was"
    pids = {server.wait_for_worker(1), server.wait_for_worker(2)}
    assert len(pids) == 2
    assert server.process.pid not in pids
    for pid in pids:
        with server.open_in(pid):
            pass
    assert said_by(server)[1] in pids


def test_systemd_hears_of_it_once_and_not_of_each_worker(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_SECONDS)
        server = Served(tmp_path, "--drain-timeout", "0.1")
        server._env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with server:
            assert systemd.recv(100) == b"READY=1"
            server.signal(signal.SIGHUP)
            assert systemd.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(100) == b"READY=1"
            server.signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert server.wait() == 0


def test_a_killed_worker_is_replaced_and_no_other_socket_notices(server: Served) -> None:
    killed, other = server.wait_for_worker(1), server.wait_for_worker(2)
    with server.open_in(other) as client:
        os.kill(killed, signal.SIGKILL)
        server.wait_for(rf"process {killed}\) was ended by SIGKILL\.  Another .* at once")
        with server.open_in(server.wait_for_worker(1, 2)):
            pass
        client.send("still there?")
        assert client.recv(PATIENCE_SECONDS) == str(other)


def test_a_worker_that_hangs_shows_where_and_is_replaced(tmp_path: Path) -> None:
    with Served(tmp_path, "--worker-heartbeat", "1") as server:
        server.wait_for_start()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /hang HTTP/1.1\r\nhost: x\r\n\r\n")
            hung = server.wait_for(r"Worker (\d) \(process \d+\) hangs: its event loop gave no")
            server.wait_for_worker(int(hung[1]), 2)
        assert re.search(r'pages\.py", line \d+ in application', server.output)
        assert said_by(server)[0] == "first"


@pytest.mark.parametrize("keeps_alive", [True, False])
def test_sighup_serves_new_code_and_no_request_fails(server: Served, keeps_alive: bool) -> None:
    former = {server.wait_for_worker(1), server.wait_for_worker(2)}
    with Traffic(server.port, keeps_alive=keeps_alive) as traffic:
        traffic.wait_for(lambda texts: len(texts) > 10)
        server.say("second")
        server.signal(signal.SIGHUP)
        for number in (1, 2):
            server.wait_for_worker(number, 2)
            server.wait_for(rf"Worker {number} \(process \d+\) ended with status 0")
        traffic.wait_for(lambda texts: texts[-1].startswith("second"))
    assert traffic.failures == []
    assert not any(is_alive(pid) for pid in former)
    assert said_by(server)[0] == "second"


def test_websockets_of_the_former_workers_are_closed_with_1012(server: Served) -> None:
    with server.open_in(server.wait_for_worker(1)) as client:
        server.signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(PATIENCE_SECONDS)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1012


def test_new_code_that_does_not_start_leaves_the_workers_of_before(server: Served) -> None:
    former = {server.wait_for_worker(1), server.wait_for_worker(2)}
    server.say("unwilling")
    server.signal(signal.SIGHUP)
    server.wait_for("no database")
    server.wait_for(r"new code does not start\.  The workers of before serve on")
    word, pid = said_by(server)
    assert word == "first"
    assert pid in former
    server.say("third")
    server.signal(signal.SIGHUP)
    server.wait_for_worker(2, 2)
    server.wait_for(r"Worker 2 \(process \d+\) drains")
    server.wait_for(r"Worker 2 \(process \d+\) ended with status 0")
    assert said_by(server)[0] == "third"


def test_an_application_that_does_not_start_ends_it_all(tmp_path: Path) -> None:
    with Served(tmp_path, greeting="unwilling") as server:
        assert server.wait() == 1
        assert server.output.count("no database") == 1
        assert server.has_closed_output


def test_the_in_memory_layer_is_refused_with_what_to_take(tmp_path: Path) -> None:
    with Served(tmp_path, layer="InMemoryChannelLayer") as server:
        assert server.wait() == 2
        server.wait_for(r"'default'\] is an in-memory layer.*--workers asks for 2.*LocalChannelLa")
        assert server.has_closed_output


def test_a_group_reaches_the_members_in_all_workers(tmp_path: Path) -> None:
    with Served(tmp_path, layer="LocalChannelLayer") as server:
        server.wait_for_start()
        first, second = server.wait_for_worker(1), server.wait_for_worker(2)
        with server.open_in(first) as one, server.open_in(second) as other:
            # Each sends to the group, and then waits for one message from it; what the first one
            # waits for is its own, and what the second one has first is that of the first.
            one.send("news")
            assert one.recv(PATIENCE_SECONDS) == str(first)
            other.send("news")
            assert other.recv(PATIENCE_SECONDS) == str(second)
            # Answered only if the second one's message has crossed over.
            one.send("news")
            assert one.recv(PATIENCE_SECONDS) == str(first)


def test_sigterm_ends_all_and_leaves_no_orphan(server: Served) -> None:
    pids = [server.wait_for_worker(1), server.wait_for_worker(2)]
    with server.open_in(pids[0]) as client:
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(PATIENCE_SECONDS)
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 1001
    assert server.wait() == 0
    assert server.has_closed_output
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(ConnectionRefusedError):
        get(server.port, "/")
    for number in (1, 2):
        assert re.search(rf"INFO     \[{number}\] Stopping: ", server.output)


def test_a_second_signal_waits_for_nothing(tmp_path: Path) -> None:
    with Served(tmp_path, "--shutdown-timeout", "500", greeting="slow to stop") as server:
        server.wait_for_start()
        server.signal(signal.SIGTERM)
        server.wait_for("stopping slowly", 2)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.has_closed_output


def test_workers_end_when_their_supervisor_is_killed(server: Served) -> None:
    server.wait_for_worker(2)
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    # They hold the output for as long as they live.
    assert server.has_closed_output


def test_a_worker_is_replaced_after_its_requests(tmp_path: Path) -> None:
    words = ("--max-requests", "5", "--recycle-spread", "0", "--drain-timeout", "0.1")
    with Served(tmp_path, *words) as server, Traffic(server.port, keeps_alive=False) as traffic:
        server.wait_for(r"drains: it has served \d+ requests\.")
        server.wait_for(r"ended with status 0")
        traffic.wait_for(lambda texts: len(set(texts)) > 2)
        assert [each for each in traffic.failures if "Refused" not in each] == []


def test_a_worker_that_takes_too_much_memory_is_replaced(tmp_path: Path) -> None:
    words = ("--max-memory", str(220 * 2**20), "--drain-timeout", "0.1")
    with Served(tmp_path, *words) as server:
        server.wait_for_start()
        _, pid = said_by(server, "/grow")
        server.wait_for(rf"process {pid}\) drains: it takes \d+ bytes of memory\.")
        server.wait_for(rf"process {pid}\) ended with status 0")
        assert said_by(server)[1] != pid


def test_sockets_that_systemd_passed_are_shared(tmp_path: Path) -> None:
    (tmp_path / "starter.py").write_text(STARTER)
    (tmp_path / "pages.py").write_text(APPLICATION)
    (tmp_path / "words.py").write_text("GREETING = 'first'\nLAYER = ''\n")
    with Child("starter.py", cwd=tmp_path) as child:
        pids = {
            int(child.wait_for(rf"Worker {number} \(process (\d+)\) serves")[1])
            for number in (1, 2)
        }
        _, text = get(child.wait_for_port(), "/")
        assert int(text.split()[-1]) in pids


def test_a_unix_socket_is_shared_and_its_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Served(tmp_path, "--unix-socket", str(path), "--drain-timeout", "0.1") as server:
        server.wait_for_start()
        server.signal(signal.SIGHUP)
        server.wait_for_worker(2, 2)
        server.wait_for("Worker 2 .* ended with status 0")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE_SECONDS)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
    assert not path.exists()


def test_reloading_is_for_one_process(tmp_path: Path) -> None:
    with Served(tmp_path, "--reload") as server:
        assert server.wait() == 2
        server.wait_for("--reload serves in one process, and --workers asks for 2")


METERED = """\
import os

from channels.metrics import metrics_app

page = metrics_app()


async def application(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    if scope["path"] == "/metrics":
        return await page(scope, receive, send)
    text = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})
"""


def answered(port: int, at_least: int) -> int:
    """Responses of all workers, as any of them counts them, once there are so many."""
    for _ in range(1000):
        _, page = get(port, "/metrics")
        found = re.search(r'^channels_server_responses_total\{status="200"\} (\d+)', page, re.M)
        count = int(found[1]) if found else 0
        if count >= at_least:
            return count
    raise AssertionError(page)


def test_any_worker_shows_the_counts_of_all_and_of_those_before(tmp_path: Path) -> None:
    (tmp_path / "metered.py").write_text(METERED)
    port = free_port()
    words = ("--workers", "2", "--port", str(port), "--max-requests", "100", "metered:application")
    with Child("-m", "channels", "serve", *words, cwd=tmp_path) as server:
        server.wait_for(r"Started channels ")
        asked = counted = 0
        served = set()
        # Each is replaced at least once meanwhile.
        while not server.has(r"Worker \d \(process \d+\) ended with status 0", 2, 0.0):
            served.add(get(port, "/")[1])
            asked += 1
            before, counted = counted, answered(port, 0)
            assert counted >= before
            assert asked < 10_000
        assert len(served) > 2
        assert answered(port, asked) >= asked
