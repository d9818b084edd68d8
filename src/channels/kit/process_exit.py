"""The end of the process on SIGTERM or SIGINT, in bounded time whatever still runs.

    when             signal   what happens
    it starts        any      SystemExit(0) in the main thread, even inside an import
    it serves        first    the target stops in order, with `seconds` for it
                     second   the target hurries, with HURRY_SECONDS for it
                     third    the deadline below is now
    it has served    any      the deadline below is now

Python's own exit knows no bound.  `threading` joins the workers of every pool of concurrent.futures
(asgiref's are among them) and all other threads that are no daemons; functions of `atexit` may
wait; so may the last flush of the standard streams.  So a daemon thread, started before it is
needed because Python 3.12 starts none while it ends, waits for the deadline.  Then it names in one
log line what still runs, calls the functions of `atexit`, and ends the process by `os._exit`.

Python runs a handler in the main thread, when that returns from what it waits for.  A loop is woken
by the system's signal; before and after it, another daemon thread hears of the signal as well, by
`signal.set_wakeup_fd`.  Only a loop held by C code that does not look at signals is beyond reach.
"""

from __future__ import annotations

import asyncio.runners
import atexit
import concurrent.futures.thread
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final, Protocol

from channels.kit.libraries import is_library

logger: Final = logging.getLogger("channels.process")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

#: From the second signal to the deadline.
HURRY_SECONDS: Final = 1.0
#: From the deadline to the end by force: for the log line and the functions of atexit.
LAST_SECONDS: Final = 1.0
#: For the threads of a command that has ended without a signal, by an error for instance.
EXIT_SECONDS: Final = 5.0

#: Where a pool's worker waits for work.
_IDLE: Final = (concurrent.futures.thread.__file__, "_worker")
#: What called the loop is not what the loop is at.
_LOOPS: Final = asyncio.runners.__file__


class Stoppable(Protocol):
    """What a signal stops; both are called in the main thread, between any two of its steps."""

    def request_stop(self) -> None:
        """End in order."""

    def hurry(self) -> None:
        """End without waiting for anything."""


class _Deadline:
    """A daemon thread that calls `action` once the earliest time that it was given has come."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._action = action
        # Of all queues only this one may be filled by a signal handler: its put is reentrant.
        self._times: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self.is_set = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def within(self, seconds: float) -> None:
        self.is_set = True
        self._times.put(time.monotonic() + seconds)

    def cancel(self) -> None:
        self._times.put(None)

    def _run(self) -> None:
        due = math.inf
        while (left := due - time.monotonic()) > 0:
            try:
                found = self._times.get(timeout=None if due == math.inf else left)
            except queue.Empty:
                break
            if found is None:
                return
            due = min(due, found)
        self._action()


class ProcessExit:
    """Takes the signals of the process and bounds its end; the table above is its behaviour."""

    def __init__(self) -> None:
        self._signals = 0
        self._signalled_at: float | None = None
        self._target: Stoppable | None = None
        self._seconds: float | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._deadline: _Deadline | None = None
        self._force: _Deadline | None = None
        self._status = 0
        self._has_served = False
        self._is_leaving = threading.Event()
        self._wakeup: int | None = None

    @property
    def is_stopping(self) -> bool:
        """True from the first signal on."""
        return self._signals > 0

    def run(self, command: Callable[[], int | None], exit_seconds: float | None = None) -> int:
        """Run the whole command of this process and return its status; the process must end then.

        Args:
            exit_seconds: For threads that still run when the command has ended; None gives them
                what a signal left of its time, or else `EXIT_SECONDS`.
        """
        atexit.register(_flush_standard_streams)
        self._install()
        self._listen()
        status = 1
        try:
            status = command() or 0
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
            raise
        finally:
            self._has_served = True
            self._bound(exit_seconds, status)
            self._listen()
        return status

    @contextmanager
    def serving(self, target: Stoppable, seconds: float | None) -> Iterator[None]:
        """Let signals stop `target`; in the main thread only.

        Outside of `run` the signals' former handlers are restored, and nothing is bounded
        afterwards: the process goes on.

        Args:
            seconds: From the first signal to the end of the process by force; None for no end.
        """
        is_alone = not self._former
        # In a command too: the application may have put its own in their place.
        self._install()
        self._target, self._seconds = target, seconds
        if self._wakeup is not None:  # a loop may have its own
            signal.set_wakeup_fd(-1)
        try:
            yield
        finally:
            self._target = None
            if is_alone:
                self._uninstall()

    def end_within(self, seconds: float, status: int = 0) -> None:
        """End this process in so many seconds, with `status` if something holds it until then."""
        self._start_deadlines()
        self._bound(seconds, status)

    def forget(self) -> None:
        """Undo in a forked child what is the parent's."""
        for number in self._former:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
        self.__init__()  # type: ignore[misc] # its threads stayed in the parent

    def _install(self) -> None:
        self._start_deadlines()
        for number in SIGNALS:
            former = signal.signal(number, self._on_signal)
            self._former.setdefault(number, former)

    def _uninstall(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for deadline in (self._deadline, self._force):
            if deadline is not None:
                deadline.cancel()
        self._former.clear()
        self._deadline = self._force = self._signalled_at = None
        self._signals = 0

    def _start_deadlines(self) -> None:
        if self._deadline is None:
            self._deadline = _Deadline("channels-deadline", self._finish)
            self._force = _Deadline("channels-force", self._leave)

    def _bound(self, seconds: float | None, status: int) -> None:
        assert self._deadline is not None, "the deadlines are started first"
        self._status = status
        # What was registered last runs first.
        atexit.register(self._is_leaving.set)
        if seconds is not None or not self._deadline.is_set:
            self._deadline.within(EXIT_SECONDS if seconds is None else seconds)

    def _listen(self) -> None:
        """Let a thread hear of signals too, until `serving` or a loop takes their place."""
        if self._wakeup is None:
            reader, self._wakeup = os.pipe()
            os.set_blocking(self._wakeup, False)
            hear = partial(self._hear, reader)
            threading.Thread(target=hear, name="channels-signals", daemon=True).start()
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)

    def _hear(self, reader: int) -> None:
        assert self._deadline is not None, "the deadlines are started first"
        while number := os.read(reader, 1):
            # Some commands take the signals themselves.
            is_ours = number[0] in SIGNALS and signal.getsignal(number[0]) == self._on_signal
            if is_ours:
                self._deadline.within(0 if self._has_served else HURRY_SECONDS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        assert self._deadline is not None, "handlers are installed after the deadlines"
        self._signals += 1
        if self._signalled_at is None:
            self._signalled_at = time.monotonic()
        if self._has_served or self._signals > 2:
            self._deadline.within(0)
        elif self._target is None:
            self._deadline.within(HURRY_SECONDS if self._signals == 1 else 0)
            raise SystemExit(0)
        elif self._signals == 1:
            if self._seconds is not None:
                self._deadline.within(self._seconds - LAST_SECONDS)
            self._target.request_stop()
        else:
            self._deadline.within(HURRY_SECONDS)
            self._target.hurry()

    # In the threads of the deadlines.

    def _finish(self) -> None:
        if self._force is None:  # what was served has ended meanwhile, and the process goes on
            return
        self._force.within(LAST_SECONDS)
        since = ""
        if self._signalled_at is not None:
            since = f" {time.monotonic() - self._signalled_at:.1f} s after the signal to stop"
        running = ", ".join(_running(include_main=not self._has_served)) or "functions of atexit"
        logger.warning("Ending process %d%s; still running: %s.", os.getpid(), since, running)
        if self._is_leaving.is_set():
            # The main thread calls them, and one of them waits: it has LAST_SECONDS more.
            return
        atexit._run_exitfuncs()
        self._leave()

    def _leave(self) -> None:
        os._exit(self._status)


def _running(*, include_main: bool) -> Iterator[str]:
    """The threads that Python would wait for, each with the line of the application it is at."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.daemon or frame is None:
            continue
        if thread is threading.main_thread() and not include_main:
            continue
        code = frame.f_code
        if (code.co_filename, code.co_name) == _IDLE:
            continue
        yield f"thread {thread.name!r} at {_place(frame)}"


def _place(frame: FrameType) -> str:
    """The innermost line that is no library's, else the innermost of all."""
    found: FrameType | None = frame
    while found is not None and is_library(found.f_code.co_filename):
        found = None if found.f_code.co_filename == _LOOPS else found.f_back
    code = (found or frame).f_code
    return f"{code.co_filename}:{(found or frame).f_lineno} in {code.co_name}"


def _flush_standard_streams() -> None:
    """Flush while the deadline holds; what cannot be written is given up.

    Else Python's own flush, after which no thread runs any more, would wait for a pipe that nobody
    reads, or end the process with status 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            _discard(stream)


def _discard(stream: Any) -> None:
    try:
        number = stream.fileno()
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, number)
        os.close(devnull)
    except (OSError, ValueError, AttributeError):
        return


#: Signals and exit are one for the whole process.
process_exit: Final = ProcessExit()
os.register_at_fork(after_in_child=process_exit.forget)
