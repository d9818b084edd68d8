"""Child processes under test: started, listened to, always ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

SRC = Path(__file__).resolve().parent.parent / "src"

#: Long enough for a busy machine; nothing waits this long when the code is right.
PATIENCE_SECONDS = 30.0


def environment(**more: str) -> dict[str, str]:
    """The variables for a child that imports this source tree, as of a site and not of a test."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "CHANNELS_TEST_RUN", "PYTEST_"))
    }
    return {
        **kept,
        "PYTHONPATH": str(SRC),
        "PYTHONUNBUFFERED": "1",
        # A file that changes within a second, and keeps its size, would be taken from the cache.
        "PYTHONDONTWRITEBYTECODE": "1",
        "DJANGO_COLORS": "",
        **more,
    }


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Child:
    """A Python process; both its streams are read as they come, as one text."""

    def __init__(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._words = [sys.executable, *words]
        self._cwd = cwd
        self._env = environment(**(env or {}))
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._words,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    @property
    def has_closed_output(self) -> bool:
        """True if it and all its children have closed their output, by ending or otherwise."""
        return self._ended

    def wait_for(self, pattern: str, times: int = 1) -> re.Match[str]:
        """The last of `times` matches in the output; fails with the output if it ends before."""
        found = self._search(pattern, times, PATIENCE_SECONDS)
        assert len(found) >= times, f"{pattern!r} is not in the output:\n{self.output}"
        return found[times - 1]

    def has(self, pattern: str, times: int, patience_seconds: float) -> bool:
        """True as soon as the output has `times` matches; fails if it ends before."""
        found = self._search(pattern, times, patience_seconds)
        assert len(found) >= times or not self._ended, self.output
        return len(found) >= times

    def _search(self, pattern: str, times: int, patience_seconds: float) -> list[re.Match[str]]:
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            found[:] = re.finditer(pattern, self.output, re.MULTILINE)
            return len(found) >= times or self._ended

        with self._changed:
            self._changed.wait_for(is_there, patience_seconds)
        return found

    def wait_for_port(self, times: int = 1) -> int:
        """The port in the address that it says it listens on."""
        return int(self.wait_for(r"Listening on \D*[\d.\]:]+:(\d+)$", times)[1])

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return status

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Tell it and its children to end, as a terminal does; its exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"It did not end:\n{self.output}") from None
        finally:
            self._reader.join(PATIENCE_SECONDS)
            assert self.process.stdout is not None
            self.process.stdout.close()


def run(
    *words: str,
    cwd: Path,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    patience_seconds: float = PATIENCE_SECONDS * 2,
) -> str:
    """What a Python process wrote that ended well, both streams as one text."""
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(**(env or {})),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience_seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout
