"""One worker, as its supervisor sees it: a fresh interpreter that runs the same command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Final

from channels.supervisor.control import ASSIGNMENT, DRAIN, Assignment, ControlLines

#: Meant for the supervisor alone, by its process number.
_NOT_FOR_WORKERS: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET")
#: For a worker that hangs to show where.
_ABORT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What every worker is started with."""

    command: Sequence[str]
    #: The listening sockets of each endpoint.
    sockets: Sequence[Sequence[socket.socket]]
    log_lock: int
    #: The folder in which each has a file for its metrics.
    counts: Path


class WorkerStage(Enum):
    """How far a worker is; it goes down this list."""

    STARTING = "starting"
    SERVING = "serving"
    ENDING = "ending"
    ENDED = "ended"


class SupervisedWorker:
    """A worker from its start to its end.

    It has a process group of its own: a terminal's Ctrl-C reaches the supervisor alone, which ends
    its workers in order.

    Args:
        generation: How many times new code had been asked for when it was started.
        now: In seconds of a monotonic clock, as in all methods.
    """

    def __init__(self, launch: Launch, number: int, generation: int, now: float) -> None:
        self.number = number
        self.generation = generation
        self.stage = WorkerStage.STARTING
        self.started_at = self.heard_at = now
        #: Why it wants to be replaced, in words.
        self.recycle_reason = ""
        #: When it is killed, if it has not ended until then.
        self.kill_at: float | None = None
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.control = ControlLines(ours)
        #: The file with its metrics, which no other worker has had.
        self.counts = launch.counts / f"{number}-{time.monotonic_ns()}"
        numbers = [[sock.fileno() for sock in each] for each in launch.sockets]
        assignment = Assignment(number, theirs.fileno(), launch.log_lock, numbers, str(self.counts))
        environ = {name: text for name, text in os.environ.items() if name not in _NOT_FOR_WORKERS}
        environ[ASSIGNMENT] = assignment.as_text()
        with theirs:
            self._process = subprocess.Popen(
                launch.command,
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), launch.log_lock, *chain.from_iterable(numbers)],
                process_group=0,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __str__(self) -> str:
        return f"Worker {self.number} (process {self.pid})"

    def drain(self, spread_seconds: float, kill_at: float) -> None:
        """Let it end because another one serves in its place."""
        self.stage = WorkerStage.ENDING
        self.kill_at = kill_at
        self.control.send(DRAIN, spread_seconds)

    def terminate(self, kill_at: float) -> None:
        """Let it end in order; a second time, without waiting for anything."""
        self.stage = WorkerStage.ENDING
        self.kill_at = kill_at
        self._signal(signal.SIGTERM)

    def abort(self, now: float) -> None:
        """Let it show in its log where its threads are, and die."""
        self.kill_at = now + _ABORT_SECONDS
        self._signal(signal.SIGABRT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def has_ended(self, status: int) -> None:
        """Its process was awaited, and ended with `status`: negative for a signal."""
        self.stage = WorkerStage.ENDED
        # Else `subprocess` would await it too, and perhaps another process of that number.
        self._process.returncode = status
        self.control.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.stage is not WorkerStage.ENDED:
            os.kill(self.pid, number)


def ended_text(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"
