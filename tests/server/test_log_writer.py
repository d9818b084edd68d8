"""Log lines: never waited for, whole, in order; what an output does not take is counted."""

from __future__ import annotations

import fcntl
import http.client
import io
import logging
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from channels.metrics.collector import server_families
from channels.server.counts import ServerCounts, counts
from channels.server.log_writer import LogWriter, WatchedFile, log_file, log_stream
from tests.processes import PATIENCE_SECONDS, environment, free_port, run

#: Linux: how many bytes a pipe holds.
_SIZE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _SIZE)
    yield reader, writer
    for number in (reader, writer):
        os.close(number)


def read_until(number: int, done: Callable[[bytes], bool]) -> bytes:
    data = b""
    while not done(data):
        data += os.read(number, 65536)
    return data


def test_a_full_pipe_is_not_waited_for(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    reader, number = pipe
    writer = LogWriter(lambda: number, "a full pipe", 10_000)
    lines = [f"line {index} {'x' * 100}\n" for index in range(1000)]
    for line in lines:
        assert writer.write(line) == len(line)
    assert not writer.drain(0.05)
    dropped = writer.dropped
    # At most 10,000 bytes waited, and a pipe of 4,096 took some of them.
    assert 1000 - 14_200 // len(lines[-1]) - 1 <= dropped < 1000
    assert counts.log_lines_dropped["a full pipe"] == dropped
    data = read_until(reader, lambda data: data.count(b"\n") == 1000 - dropped)
    assert writer.drain(PATIENCE_SECONDS)
    # Whole, and in order: what was dropped is the end.
    assert data.decode() == "".join(lines[: 1000 - dropped])
    writer.write("it flows\n")
    assert read_until(reader, lambda data: data.endswith(b"\n")) == b"it flows\n"
    said = f"Dropped {dropped} log lines: a full pipe took none for a while."
    assert said in caplog.text


def test_lines_of_many_threads_stay_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reader, number = pipe
    writer = LogWriter(lambda: number, "threads")

    def write(name: str) -> None:
        for index in range(300):
            writer.write(f"{name} {index} {name * 20}\n")

    threads = [threading.Thread(target=write, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    lines = read_until(reader, lambda data: data.count(b"\n") == 1200).decode().splitlines()
    for thread in threads:
        thread.join()
    for name in "abcd":
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name} {index} {name * 20}" for index in range(300)]


def test_a_descriptor_that_another_process_made_non_blocking(pipe: tuple[int, int]) -> None:
    reader, number = pipe
    os.set_blocking(number, False)
    writer = LogWriter(lambda: number, "non-blocking")
    text = "".join(f"{index}\n" for index in range(5000))
    writer.write(text)
    assert read_until(reader, lambda data: len(data) >= len(text)).decode() == text
    assert writer.dropped == 0


def test_what_the_system_refuses_is_counted_and_the_next_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file, open("/dev/full", "wb") as full:
        number = full.fileno()
        writer = LogWriter(lambda: number, "a full disk")
        writer.write("one\ntwo\n")
        assert writer.drain(PATIENCE_SECONDS)
        assert writer.dropped == 2
        number = file.fileno()
        writer.write("three\n")
        assert writer.drain(PATIENCE_SECONDS)
    assert path.read_text() == "three\n"


def test_a_closed_pipe_and_a_closed_terminal() -> None:
    reader, number = os.pipe()
    os.close(reader)
    controller, terminal = pty.openpty()
    os.close(controller)
    for name, closed in (("pipe", number), ("terminal", terminal)):
        writer = LogWriter(lambda closed=closed: closed, f"a closed {name}")  # type: ignore[misc]
        writer.write("one\n")
        assert writer.drain(PATIENCE_SECONDS)
        assert writer.dropped == 1
        os.close(closed)


def test_a_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stream = log_file(str(path))
    assert isinstance(stream, LogWriter)
    for text in ("first\n", "second\n"):
        stream.write(text)
        assert stream.drain(PATIENCE_SECONDS)
        path.rename(tmp_path / text.strip())
    assert (tmp_path / "first").read_text() == "first\n"
    assert (tmp_path / "second").read_text() == "second\n"


def test_a_file_that_cannot_be_opened_again_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    watched = WatchedFile(str(folder / "log"))
    number = watched()
    folder.rename(tmp_path / "moved")
    assert watched() == number


def test_a_stream_that_is_no_file_stays_itself() -> None:
    stream = io.StringIO()
    assert log_stream(stream, "none") is stream


def test_a_closed_standard_stream_takes_everything() -> None:
    stream = log_stream(None, "closed")
    assert isinstance(stream, LogWriter)
    stream.write("one\n")
    assert stream.drain(PATIENCE_SECONDS)
    assert stream.dropped == 0


FORKS = """
import os
from channels.server.log_writer import LogWriter

writer = LogWriter(lambda: 1, "fork")
writer.write("parent\\n")
child = os.fork()
writer.write("both\\n")
if child == 0:
    os._exit(not writer.drain(30))
assert os.waitpid(child, 0)[1] == 0
"""


def test_what_was_queued_before_a_fork_is_written_once(tmp_path: Path) -> None:
    assert sorted(run("-c", FORKS, cwd=tmp_path).split()) == ["both", "both", "parent"]


def test_dropped_lines_are_in_the_metrics() -> None:
    found = ServerCounts()
    found.log_lines_dropped["stdout"] += 3
    (family,) = [it for it in server_families(found) if it.name.endswith("log_lines_dropped")]
    assert family.samples == {("stdout",): [3]}


def test_handlers_need_nothing_but_a_stream(pipe: tuple[int, int]) -> None:
    reader, number = pipe
    handler = logging.StreamHandler(LogWriter(lambda: number, "handler"))
    handler.emit(logging.makeLogRecord({"msg": "one"}))
    handler.flush()
    assert read_until(reader, lambda data: data.endswith(b"\n")) == b"one\n"


PAGES = """\
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
"""


class TestServing:
    """Both standard streams of a server lead to something that takes nothing."""

    @pytest.mark.parametrize("command", ["channels serve", "daphne"])
    @pytest.mark.parametrize("output", ["full pipe", "closed pipe", "full disk", "closed terminal"])
    def test_it_answers_and_stops(self, tmp_path: Path, command: str, output: str) -> None:
        (tmp_path / "pages.py").write_text(PAGES)
        port = free_port()
        with (
            stalled(output) as number,
            subprocess.Popen(
                [sys.executable, "-m", *command.split(), "pages:application", "-p", str(port)],
                cwd=tmp_path,
                env=environment(),
                stdout=number,
                stderr=number,
            ) as process,
        ):
            try:
                client = connected(port)
                # Far more than a pipe of 4,096 bytes holds.
                for _ in range(200):
                    client.request("GET", "/" + "x" * 100)
                    assert client.getresponse().read() == b"x"
                client.close()
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_SECONDS) == 0
            finally:
                process.kill()


@contextmanager
def stalled(output: str) -> Iterator[int]:
    """The descriptor of an output that takes nothing, or little."""
    if output == "closed terminal":
        other, number = pty.openpty()
    elif output == "full disk":
        other, number = os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    else:
        other, number = os.pipe()
        fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, _SIZE)
    if output.startswith("closed"):
        os.close(other)
    try:
        yield number
    finally:
        os.close(number)
        if not output.startswith("closed"):
            os.close(other)


def connected(port: int) -> http.client.HTTPConnection:
    """A client of a server that may still be starting."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.connect()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
        else:
            return client


def test_lines_of_several_processes_to_one_pipe_are_whole(pipe: tuple[int, int]) -> None:
    reader, number = pipe
    # Longer than what a pipe takes as one.
    program = (
        "import sys\n"
        "from channels.server.log_writer import LogWriter, share_outputs\n"
        "share_outputs(int(sys.argv[1]))\n"
        "writer = LogWriter(lambda: int(sys.argv[2]), 'test', 2**24)\n"
        "for _ in range(50):\n"
        "    writer.write(sys.argv[3] * 9999 + '\\n')\n"
        "assert writer.drain(60)\n"
    )
    with tempfile.TemporaryFile() as lock:
        passed = (lock.fileno(), number)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", program, *map(str, passed), letter],
                pass_fds=passed,
                env=environment(),
            )
            for letter in "abc"
        ]
        data = read_until(reader, lambda data: data.count(b"\n") == 150)
        assert [child.wait(PATIENCE_SECONDS) for child in children] == [0, 0, 0]
    lines = data.decode().splitlines()
    assert sorted(set(lines)) == [letter * 9999 for letter in "abc"]
