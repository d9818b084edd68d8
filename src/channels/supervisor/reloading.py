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
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.exceptions import InvalidOption
from channels.kit.process_exit import LAST_SECONDS, process_exit

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
    supervised = _Supervised()
    # The parent's own end takes no time.
    with process_exit.serving(supervised, watched.stop_seconds + LAST_SECONDS + 1):
        changes = watchfiles.watch(
            *watched.folders,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=supervised.stop,
            rust_timeout=_LOOK_MILLISECONDS,
            yield_on_timeout=True,
        )
        try:
            for changed in changes:
                child = supervised.child
                if child is None:
                    # Not before the watch is set: no change after its start may be missed.
                    logger.info("Watching %s for changes.", ", ".join(watched.folders))
                    supervised.child = _Child(watched)
                elif changed:
                    logger.warning("Changed: %s.  Starting anew.", _names(changed))
                    child.end()
                    supervised.child = _Child(watched)
                else:
                    child.look()
        finally:
            if supervised.child is not None:
                supervised.child.end()
    return 0


def is_child(environ: Mapping[str, str]) -> bool:
    """True in the process that is started anew, which must not watch in its turn."""
    return CHILD in environ


def _import_watchfiles() -> Any:
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidOption(
            "--reload needs the package watchfiles, which is not installed: pip install watchfiles."
        ) from None
    return watchfiles


class _Supervised:
    """The child of now, and whether the parent was told to stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.child: _Child | None = None

    def request_stop(self) -> None:
        self.stop.set()

    def hurry(self) -> None:
        if self.child is not None:
            self.child.kill()


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

    def kill(self) -> None:
        """End it by force; `end` awaits it."""
        self._process.kill()

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
