"""Metrics of all workers as one, whichever worker is asked.

Each worker writes its metrics into a file of its own, in a folder of the supervisor's, and reads
those of the others.  No count goes back: a worker writes its file before it answers, so whoever
answers next adds at least as much; and of a worker that has ended the supervisor keeps the counts,
in one more file.  A worker that hangs takes part with what it last wrote.

Before anybody has asked, nothing is written.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from channels.kit.families import LASTING_KINDS, Family, summed

logger: Final = logging.getLogger("channels.metrics")

#: The file with the counts of workers that have ended, and the names of those that it includes.
_ENDED: Final = "ended"
#: How many such names: more than end while one worker reads the folder.
_MOST_NAMES: Final = 1000
#: Defines how a worker's metrics are made; of a higher floor, so it is imported by name.
_COLLECTOR_MODULE: Final = "channels.metrics.collector"


class CountsFolder:
    """The supervisor's end: it makes the folder, and keeps the counts of workers that end."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="channels-"))
        # systemd-tmpfiles leaves a folder alone on which somebody has a lock.
        self._descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._ended: list[Family] = []
        self._names: deque[str] = deque(maxlen=_MOST_NAMES)

    def keep(self, name: str) -> None:
        """Add the counts of a worker whose process has ended to those that are kept."""
        file = self.path / name
        try:
            # It may have been killed in the middle of one.
            _new(file).unlink(missing_ok=True)
            families = _read(file)
            if families is None:
                return
            lasting = [each for each in families if each.kind in LASTING_KINDS]
            self._ended = summed([*self._ended, *lasting])
            self._names.append(name)
            # In this order, and read in the other one: it is counted once at every moment.
            _write(self.path / _ENDED, {"names": [*self._names], "families": _data(self._ended)})
            file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("The counts of a worker that has ended are lost: %s", error)

    def remove(self) -> None:
        """Delete the folder."""
        os.close(self._descriptor)
        shutil.rmtree(self.path, ignore_errors=True)


class SharedCounts:
    """A worker's end; in a process that is none, `total` is the process's own."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._has_failed = False
        # Requests are answered by several threads, and what one wrote must not be replaced by what
        # another had counted before.
        self._lock = threading.Lock()
        #: Counts this process's own metrics; set once somebody wants to see them.
        self.source: Callable[[], Iterable[Family]] | None = None

    def join(self, file: str) -> None:
        """Take part, with this file."""
        self._file = Path(file)

    def look(self) -> None:
        """Write this worker's metrics, if any worker has been asked for them."""
        if self._file is None:
            return
        try:
            if self.source is None and not any(self._file.parent.iterdir()):
                return
            if self.source is None:
                importlib.import_module(_COLLECTOR_MODULE).begin()
            self._publish(self._file)
        except (ImportError, OSError) as error:
            self._failed(error)

    def total(self, own: Callable[[], Iterable[Family]]) -> list[Family]:
        """The metrics of all workers; of this process, `own`, those of now."""
        file = self._file
        if file is None or self.source != own:
            return list(own())
        try:
            return summed([*self._publish(file), *_others(file)])
        except OSError as error:
            self._failed(error)
            return list(own())

    def _publish(self, file: Path) -> list[Family]:
        assert self.source is not None, "its callers have looked"
        with self._lock:
            families = list(self.source())
            _write(file, {"families": _data(families)})
        return families

    def _failed(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            logger.error("The workers' metrics cannot be shared, each shows its own: %s", error)


#: Of this process.
shared_counts: Final = SharedCounts()


def _others(own: Path) -> Iterable[Family]:
    """The metrics of the other workers, and the counts of those that have ended."""
    others = {file.name for file in own.parent.iterdir()} - {own.name, _ENDED}
    found = {name: _read(own.parent / name) for name in others if not name.startswith(".")}
    ended = _load(own.parent / _ENDED) or {"names": [], "families": []}
    for name in ended["names"]:
        found.pop(name, None)
    for families in found.values():
        yield from families or ()
    yield from map(Family.from_data, ended["families"])


def _data(families: Iterable[Family]) -> list[Any]:
    return [family.as_data() for family in families]


def _read(file: Path) -> list[Family] | None:
    content = _load(file)
    return None if content is None else [Family.from_data(each) for each in content["families"]]


def _load(file: Path) -> Any:
    """What a file contains; None if there is none, or no more."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None


def _write(file: Path, content: Any) -> None:
    """Write a file that nobody sees in parts."""
    new = _new(file)
    new.write_text(json.dumps(content))
    new.replace(file)


def _new(file: Path) -> Path:
    return file.with_name(f".{file.name}")
