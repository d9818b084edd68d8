"""Where a case is played: a broker of its own, and processes that use a layer on it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.layers.brokers import running
from benchmarks.layers.contenders import Contender
from benchmarks.layers.member import CALL_SECONDS, Gauge
from benchmarks.layers.server import Broker

START_SECONDS = 60.0
CASE_SECONDS = 180.0
STOP_SECONDS = 5.0
#: With everything there, doubles may still come; with something missing, it may still come.
SETTLED_SECONDS, MISSING_SECONDS = 1.0, 6.0


class Stuck(Exception):
    """A process did not do its part in time, or ended."""


class Process:
    """A member: told what to do, and asked what came of it."""

    def __init__(self, contender: Contender, settings: dict[str, Any], folder: Path) -> None:
        self.gauge = Gauge(Path(settings["gauge"]))
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log = folder / f"{Path(settings['gauge']).name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [contender.python, "-m", "benchmarks.layers.member", json.dumps(settings)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": contender.path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._reading.join(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def wait(self, name: str, seconds: float = CASE_SECONDS) -> Any:
        """What it says under this name.

        Raises:
            Stuck: If it says nothing, or something else.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise Stuck(f"no {name!r} within {seconds:g} s: {self._logged()}") from None
        if name not in line:
            raise Stuck(f"{line} instead of {name!r}: {self._logged()}")
        return line[name]

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        # One that has ended is found out by what it does not say.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP: it does nothing until SIGCONT."""
        self._process.send_signal(number)

    def has_said(self) -> bool:
        """True if `wait` would return at once."""
        return not self._lines.empty()

    def finish(self) -> dict[str, Any]:
        """Have it stop; its result."""
        self.tell("stop")
        result: dict[str, Any] = self.wait("result", 3 * CALL_SECONDS)
        return result

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put({"ended": True})

    def _logged(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]


class Stage:
    """A broker and a contender's processes."""

    def __init__(self, contender: Contender, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self._contender = contender
        self._folder = folder
        self._processes: list[Process] = []
        self._open = contextlib.ExitStack()

    def spawn(self, role: str, **settings: Any) -> Process:
        """Start a process in a role of `member`; it is ready when it has said so."""
        whole = {
            "role": role,
            "layer": self._contender.layer,
            "config": {**self.broker.config, **self._contender.config},
            "databases": self.broker.databases,
            "gauge": str(self._folder / f"{role}-{len(self._processes)}"),
            **settings,
        }
        process = self._open.enter_context(Process(self._contender, whole, self._folder))
        self._processes.append(process)
        return process

    def begin(self) -> None:
        """Wait until all are ready."""
        for process in self._processes:
            process.wait("ready", START_SECONDS)

    def close(self) -> None:
        self._open.close()


@contextlib.contextmanager
def stage(contender: Contender, kills: bool = False) -> Iterator[Stage]:
    """A stage with its broker, until the end."""
    with (
        running(contender.broker, kills) as broker,
        tempfile.TemporaryDirectory(prefix="channels-bench-") as folder,
    ):
        found = Stage(contender, broker, Path(folder))
        try:
            yield found
        finally:
            found.close()


def settle(readers: Sequence[Process], arrived: Callable[[], bool]) -> None:
    """Wait until nothing more comes."""
    deadline = time.monotonic() + CASE_SECONDS
    last, since = -1, time.monotonic()
    while time.monotonic() < deadline:
        found = sum(reader.gauge.value for reader in readers)
        if found != last:
            last, since = found, time.monotonic()
        patience = SETTLED_SECONDS if arrived() else MISSING_SECONDS
        if time.monotonic() - since > patience:
            return
        time.sleep(0.02)


def hold_still(processes: Sequence[Process], seconds: float = 0.1) -> None:
    """Wait until no gauge has moved for so long."""
    deadline = time.monotonic() + CASE_SECONDS
    last: list[int] = []
    since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < seconds:
        found = [process.gauge.value for process in processes]
        if found != last:
            last, since = found, time.monotonic()
        time.sleep(0.005)
