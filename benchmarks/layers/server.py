"""What every broker of the benchmark is: a process of its own, to be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

START_SECONDS = 20.0
STOP_SECONDS = 5.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


class NotInstalled(Exception):
    """There is no such program on this machine; says which."""


class Server:
    """A broker's process, to be killed and started again."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
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
                env=self._environment,
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

    def tell_family(self, number: signal.Signals) -> None:
        """Signal it and its children, where these have sessions of their own."""
        assert self._process is not None, "it has been started"
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

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
    #: Commands that carry a message, also those that a script runs.
    messages: int


class Broker(ABC):
    """What a case may do to a broker."""

    #: Names of cases that cannot be played with it.
    unfit: ClassVar[frozenset[str]] = frozenset()
    #: Of the loopback interface; 0: it has none.
    port = 0
    _server: Server

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """CONFIG of a layer on it."""

    @property
    def databases(self) -> dict[str, Any] | None:
        """DATABASES of Django for a layer on it; None: it needs no Django."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Run it until it answers; again after it was killed."""

    def allow_kills(self) -> None:  # noqa: B027 - most can without it
        """Stand where connections can be ended, whatever that costs; before `start`."""

    @abstractmethod
    def kill_connections(self) -> None:
        """End every client's, not the one that this is done by; after `allow_kills`."""

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._server.end(number)

    def close(self) -> None:
        """End it for good."""
        self.end()

    def kill(self) -> None:
        """End it without a chance to save anything."""
        self.end(signal.SIGKILL)

    def pause(self) -> None:
        """Hold it still: what it has not sent yet stays with it."""
        self._server.tell(signal.SIGSTOP)

    def meter(self) -> Meter | None:
        """None: it counts nothing of the kind."""
        return None
