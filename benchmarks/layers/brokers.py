"""Brokers of the benchmark's own: on a free port, writing nothing to disk, ended at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 20.0
STOP_SECONDS = 5.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class Server:
    """A broker's process, to be killed and started again."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = list(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, answers: Callable[[], bool]) -> None:
        """Run it until it answers.

        Raises:
            SystemExit: If it ends or does not answer.
        """
        log = self._folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if answers():
                    return
            time.sleep(0.01)
        self.end(signal.SIGKILL)
        sys.exit(f"{self._command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")

    def tell(self, number: signal.Signals) -> None:
        """Signal it and what it has forked."""
        assert self._process is not None, "it has been started"
        os.killpg(self._process.pid, number)

    def end(self, first: signal.Signals) -> None:
        """End it, by SIGKILL if it takes its time."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (first, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                return


@dataclass(frozen=True, slots=True)
class Meter:
    """What a broker has counted since it started."""

    connections: int
    commands: int
    bytes: int


class Broker(ABC):
    """What a case may do to a broker."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """CONFIG of a layer on it."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def end(self, number: signal.Signals = signal.SIGTERM) -> None: ...

    @abstractmethod
    def pause(self) -> None:
        """Hold it still: what it has not sent yet stays with it."""

    @abstractmethod
    def kill_connections(self) -> None:
        """End every client's, not the one that this is done by."""

    def meter(self) -> Meter | None:
        """None: it counts nothing of the kind."""
        return None


class Redis(Broker):
    """redis-server, or valkey-server, and a connection to watch it by."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            sys.exit("Found neither redis-server nor valkey-server: install one of them.")
        self.port = free_port()
        self._control: socket.socket | None = None
        self._server = Server(
            [
                *(program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
            ],
            folder,
        )

    @property
    def config(self) -> dict[str, Any]:
        return {"hosts": [f"redis://127.0.0.1:{self.port}"]}

    def start(self) -> None:
        self._server.start(lambda: self.command("PING") == "PONG")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        self._server.end(number)

    def pause(self) -> None:
        self._server.tell(signal.SIGSTOP)

    def kill_connections(self) -> None:
        for kind in ("normal", "pubsub"):
            self.command(f"CLIENT KILL TYPE {kind} SKIPME yes")

    def meter(self) -> Meter:
        lines = [line.partition(":") for line in self.command("INFO stats").splitlines()]
        found = {name: value for name, _, value in lines}
        traffic = int(found["total_net_input_bytes"]) + int(found["total_net_output_bytes"])
        connections, commands = "total_connections_received", "total_commands_processed"
        return Meter(int(found[connections]), int(found[commands]), traffic)

    def command(self, text: str) -> str:
        """One command on the control connection, which is opened once.

        Raises:
            OSError: If Redis does not answer.
            RuntimeError: If it answers with an error.
        """
        if self._control is None:
            self._control = socket.create_connection(("127.0.0.1", self.port), 5)
        self._control.sendall(text.encode() + b"\r\n")
        answer = b""
        while not is_whole(answer):
            if not (more := self._control.recv(65536)):
                raise ConnectionError("Redis has closed the control connection.")
            answer += more
        head, _, rest = answer.decode().partition("\r\n")
        if head.startswith("-"):
            raise RuntimeError(f"{text}: {head}")
        return rest[:-2] if head.startswith("$") else head[1:]


def is_whole(answer: bytes) -> bool:
    """True if this is all of a simple string, an error, a number or a bulk string of RESP."""
    head, found, rest = answer.partition(b"\r\n")
    if not found or not head.startswith(b"$"):
        return bool(found)
    return len(rest) >= int(head[1:]) + 2


#: Name -> what to start.
BROKERS: dict[str, Callable[[Path], Broker]] = {"redis": Redis}


@contextlib.contextmanager
def running(name: str) -> Iterator[Broker]:
    """A broker in a folder of its own, until the end."""
    with tempfile.TemporaryDirectory(prefix="channels-bench-") as folder:
        broker = BROKERS[name](Path(folder))
        try:
            broker.start()
            yield broker
        finally:
            broker.end()
