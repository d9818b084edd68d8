"""Text streams for log lines that never wait for the output.

Whatever takes the output may stall: a pipe that nobody reads, a terminal that was stopped, a disk
that is full.  A write from the loop would then stop the whole server.  So lines are queued, and a
daemon thread writes them: in order, and whole.  A descriptor set to non-blocking would not do: the
shell and other processes share that mode, and files have none.

Several processes may share an output (`share_outputs`): what one of them writes at a time, the
others do not tear, though a pipe takes no more than 4 KiB as one.

Overflow: a line for which there is no room is dropped and counted; so are lines that the system
refuses (EIO, EPIPE, ENOSPC).  Once lines are written again, the log tells how many were dropped.
Close order: at exit the thread has `DRAIN_SECONDS` for what is queued.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO, cast

from channels.kit.limits import MIB
from channels.server.counts import counts

logger: Final = logging.getLogger("django.channels.server")

#: How long a line waits for others to be written with it: else each would wake the thread, which
#: costs more than the write.
GATHER_SECONDS: Final = 0.02
#: For what is queued when the process ends.
DRAIN_SECONDS: Final = 0.5
#: Between two reports of dropped lines.
REPORT_SECONDS: Final = 5.0

_POLL_MILLISECONDS: Final = 1000


class LogWriter:
    """A stream for `logging.StreamHandler` and the like.

    Args:
        descriptor: Asked before each write for what to write to.
        name: Of the output, in counts and in the log.
        max_bytes: Most that waits to be written.
    """

    def __init__(
        self,
        descriptor: Callable[[], int],
        name: str,
        max_bytes: int = MIB,
        encoding: str = "utf-8",
    ) -> None:
        self._descriptor = descriptor
        self.name = name
        self._max_bytes = max_bytes
        self.encoding = encoding
        #: Lines that were dropped so far.
        self.dropped = 0
        self._reported = 0
        self._reported_at = -REPORT_SECONDS
        self._is_cut = False
        self._start_anew()
        _writers.add(self)

    def _start_anew(self) -> None:
        # A signal handler may log while its thread holds the lock: this one is reentrant.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: list[bytes] = []
        self._waiting_bytes = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Queue `text`, whole lines; never waits."""
        data = text.encode(self.encoding, "backslashreplace")
        # By its lock, whose `with` runs no Python code: each request of the server comes here.
        with self._lock:
            waiting = self._waiting_bytes + len(data)
            if waiting > self._max_bytes or (self._thread is None and not self._start_thread()):
                self._drop(text.count("\n"))
                return len(text)
            self._waiting_bytes = waiting
            if not self._queue:
                self._changed.notify_all()
            self._queue.append(data)
        return len(text)

    def flush(self) -> None:
        """Does nothing: handlers call it after each line."""

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until all is written, so long at most; False if something is left."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, seconds)

    def _start_thread(self) -> bool:
        thread = threading.Thread(target=self._run, name=f"channels-log {self.name}")
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends
            return False
        self._thread = thread
        return True

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        counts.log_lines_dropped[self.name] += lines

    # In the thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
            time.sleep(GATHER_SECONDS)
            with self._changed:
                batch, self._queue = b"".join(self._queue), []
            with _alone(self._descriptor):
                left = self._write_all(batch)
            with self._changed:
                self._waiting_bytes -= len(batch)
                self._drop(left.count(b"\n"))
                self._changed.notify_all()
            if not left:
                self._report()

    def _write_all(self, batch: bytes) -> bytes:
        """What the system did not take."""
        if self._is_cut:
            batch = b"\n" + batch
        while batch:
            try:
                number = self._descriptor()
                written = os.write(number, batch)
            except BlockingIOError:
                _wait_for_room(number)
                continue
            except OSError:
                break
            self._is_cut = batch[written - 1 : written] != b"\n"
            batch = batch[written:]
        return batch

    def _report(self) -> None:
        lines = self.dropped - self._reported
        now = time.monotonic()
        if lines and now - self._reported_at >= REPORT_SECONDS:
            self._reported += lines
            self._reported_at = now
            logger.warning("Dropped %d log lines: %s took none for a while.", lines, self.name)


#: A file whose locks say which process writes; None if no output is shared.
_lock_file: int | None = None


def share_outputs(lock_file: int | None) -> None:
    """Write to each output only while no other process does that has this file, too.

    Args:
        lock_file: A descriptor; a process that ends releases its locks.  None: nothing is shared.
    """
    global _lock_file  # noqa: PLW0603 - the outputs are the process's
    _lock_file = lock_file


@contextmanager
def _alone(descriptor: Callable[[], int]) -> Iterator[None]:
    """While this runs, other processes do not write to the output of this descriptor."""
    lock_file = _lock_file
    if lock_file is None:
        yield
        return
    number = descriptor()  # the same in all processes: each output has one byte of the file
    try:
        fcntl.lockf(lock_file, fcntl.LOCK_EX, 1, number)
    except OSError:  # closed while the process ends
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.lockf(lock_file, fcntl.LOCK_UN, 1, number)


#: For the end of the process, and for the children of a fork, which have no threads.
_writers: Final[weakref.WeakSet[LogWriter]] = weakref.WeakSet()


def _start_all_anew() -> None:
    for writer in [*_writers]:
        writer._start_anew()


def _drain_all() -> None:
    for writer in [*_writers]:
        writer.drain()


os.register_at_fork(after_in_child=_start_all_anew)
atexit.register(_drain_all)


def _wait_for_room(number: int) -> None:
    """Wait a while for a descriptor that another process has set to non-blocking."""
    poller = select.poll()
    poller.register(number, select.POLLOUT)
    poller.poll(_POLL_MILLISECONDS)


class WatchedFile:
    """A file that is appended to, and opened again when it was moved away, as logrotate does it.

    Raises:
        OSError: If it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = self._open()

    def __call__(self) -> int:
        """Its descriptor; the former one if the file cannot be opened again."""
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._number)):
                return self._number
        except OSError:
            pass
        try:
            number = self._open()
        except OSError:
            return self._number
        os.close(self._number)
        self._number = number
        return number

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def log_stream(stream: TextIO | None, name: str, max_bytes: int = MIB) -> TextIO:
    """A `LogWriter` to a standard stream; the stream itself if it is no file of the system's."""
    if stream is None:  # closed when the process began
        return log_file(os.devnull, max_bytes)
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    return cast("TextIO", LogWriter(lambda: number, name, max_bytes, stream.encoding or "utf-8"))


def log_file(path: str, max_bytes: int = MIB) -> TextIO:
    """A `LogWriter` to the end of a file.

    Raises:
        OSError: If it cannot be opened.
    """
    return cast("TextIO", LogWriter(WatchedFile(path), path, max_bytes))
