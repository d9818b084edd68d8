"""A command that is started anew whenever a Python file changes: for development.

The command runs in a child process, because what a module once imported cannot be imported again
in order.  The parent imports nothing of the application, so an error in it never ends the parent:
it waits for the next change.

Stop order of the child: SIGTERM, on which a server says goodbye to its connections; SIGKILL after
`stop_seconds`, whatever holds it: a socket, a thread, a handler that never ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from channels.exceptions import InvalidOption

logger = logging.getLogger("channels.reload")

#: In the environment of the child; its parent is the one that watches.
CHILD = "CHANNELS_RELOADED"

#: How often the parent looks after its child while nothing changes.
_LOOK_MILLISECONDS = 200


@dataclass(frozen=True, slots=True)
class Watched:
    """A command, and the folders whose Python files it is made of.

    Raises:
        InvalidOption: If a folder does not exist.
    """

    command: Sequence[str]
    folders: Sequence[str]
    stop_seconds: float

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not Path(folder).is_dir():
                raise InvalidOption(f"{folder!r} cannot be watched: expected a folder.")


def run_reloading(watched: Watched) -> int:
    """Run the command and start it anew on each change, until SIGINT or SIGTERM.

    Raises:
        InvalidOption: If the package that watches files is not installed.
    """
    watchfiles = _import_watchfiles()
    stop = threading.Event()
    child = None
    with _until_signal(stop):
        changes = watchfiles.watch(
            *watched.folders,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=stop,
            rust_timeout=_LOOK_MILLISECONDS,
            yield_on_timeout=True,
        )
        try:
            for changed in changes:
                if child is None:
                    # Not before the watch is set: no change after its start may be missed.
                    logger.info("Watching %s for changes.", ", ".join(watched.folders))
                    child = _Child(watched)
                elif changed:
                    logger.warning("Changed: %s.  Starting anew.", _names(changed))
                    child.end()
                    child = _Child(watched)
                else:
                    child.look()
        finally:
            if child is not None:
                child.end()
    return 0


def is_child(environ: Mapping[str, str]) -> bool:
    """True in the process that is started anew, which must not watch in its turn."""
    return CHILD in environ


def _import_watchfiles() -> Any:
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidOption(
            "--reload needs the package watchfiles, which is not installed: "
            "pip install 'channels[reload]'."
        ) from None
    return watchfiles


@contextmanager
def _until_signal(stop: threading.Event) -> Iterator[None]:
    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Child:
    """One run of the command."""

    def __init__(self, watched: Watched) -> None:
        environ = {**os.environ, CHILD: "1"}
        # Sockets that systemd passed were meant for the parent, by its number; the child has them
        # too.
        environ.pop("LISTEN_PID", None)
        self._stop_seconds = watched.stop_seconds
        self._process = subprocess.Popen(watched.command, env=environ, close_fds=False)
        self._has_ended = False

    def look(self) -> None:
        """Say once that it has ended by itself."""
        if not self._has_ended and self._process.poll() is not None:
            self._has_ended = True
            status = self._process.returncode
            logger.warning("It ended with status %d.  Waiting for a change.", status)

    def end(self) -> None:
        """End it, in order if it does so in time."""
        self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("It did not stop within %g s and is killed.", self._stop_seconds)
            self._process.kill()
            self._process.wait()


def _names(changed: set[tuple[Any, str]]) -> str:
    return ", ".join(sorted(os.path.relpath(path) for _, path in changed))
