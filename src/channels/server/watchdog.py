"""Names what holds an event loop, with the stack of the moment.

A timer of the loop gives a sign of life again and again.  When none comes in time, a thread looks
where the loop's thread is: a stack that is taken while the loop is held, not a time that is known
when it is over.  It works with any loop, uvloop's too.

The loop counts as held where its thread is found in Python code that is not the loop's own, or has
used that much processor time.  A machine that is busy with others makes the sign late as well; who
must not be misled by that asks for processor time alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Final

from channels.kit import exits
from channels.kit.libraries import is_library
from channels.kit.throttle import Throttle, and_more

logger: Final = logging.getLogger("django.channels.server")

#: The pause between two signs, as a part of the time that the loop may be held: what holds it for
#: a quarter longer than that is found.
_PAUSE: Final = 0.25
#: How many frames of the stack are kept, the innermost.
_FRAMES: Final = 20
#: Something that holds the loop for so long is told before it ends, as it may never.
STILL_SECONDS: Final = 5.0
#: Where a loop's own code is found, while it waits for something to do.
_IDLE: Final = (os.path.dirname(asyncio.__file__) + os.sep, selectors.__file__, exits.__file__)


@dataclass(frozen=True, slots=True)
class LoopStall:
    """One time that the loop did not turn."""

    seconds: float
    cpu_seconds: float
    #: Innermost frame last; empty if the loop's thread was only seen in the loop's own code.
    stack: tuple[traceback.FrameSummary, ...]
    #: False if the loop is still held.
    is_over: bool

    @property
    def place(self) -> str:
        """The project's innermost frame, else the innermost of all; for the log."""
        if not self.stack:
            return "many short calls, or one in C"
        frame = (self.of_project or self.stack)[-1]
        return f"{frame.name} in {frame.filename}:{frame.lineno}"

    @property
    def of_project(self) -> list[traceback.FrameSummary]:
        """The frames that are no library's."""
        return [each for each in self.stack if not is_library(each.filename)]


class Watchdog:
    """Watches the loop of the thread that starts it.

    Close order: `stop` returns at once; the thread ends within its next look.

    Args:
        seconds: How long the loop may be held.
        on_held: Called on the watchdog's thread.
        by_cpu: Count only the processor time of the loop's thread, where the system tells it.
    """

    def __init__(
        self, seconds: float, on_held: Callable[[LoopStall], None], *, by_cpu: bool = False
    ) -> None:
        self._seconds = seconds
        self._pause = seconds * _PAUSE
        self._on_held = on_held
        self._by_cpu = by_cpu and hasattr(time, "pthread_getcpuclockid")
        self._clock: int | None = None
        self._stopped = threading.Event()
        # Written by the loop's thread, read by the watchdog's: the last sign, and the gaps between
        # two signs that were too long, in seconds and in processor time, with the first one's.
        self._sign = (0.0, 0.0)
        self._gaps: deque[tuple[float, float, float]] = deque(maxlen=100)

    def start(self) -> None:
        """Watch the running loop, until `stop` or the loop's end."""
        loop, ident = asyncio.get_running_loop(), threading.get_ident()
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(ident)
        self._sign = time.monotonic(), time.thread_time()
        loop.call_later(self._pause, self._give_sign, loop)
        threading.Thread(
            target=self._run, args=(loop, ident), name="channels-watchdog", daemon=True
        ).start()

    def stop(self) -> None:
        """End the watch; from any thread, any number of times."""
        self._stopped.set()

    def _give_sign(self, loop: asyncio.AbstractEventLoop) -> None:
        before_at, before_cpu = self._sign
        self._sign = now, cpu = time.monotonic(), time.thread_time()
        # A timer that is due runs before the loop has turned twice: what passes beyond the pause,
        # the loop was held.
        seconds = now - before_at - self._pause
        if seconds >= self._seconds:
            self._gaps.append((before_at, seconds, max(0.0, cpu - before_cpu - self._pause)))
        if not self._stopped.is_set():
            loop.call_later(self._pause, self._give_sign, loop)

    def _run(self, loop: asyncio.AbstractEventLoop, ident: int) -> None:
        stack: tuple[traceback.FrameSummary, ...] = ()
        looked_at = told_at = 0.0
        while not (self._stopped.wait(self._pause) or loop.is_closed()):
            while self._gaps:
                since, seconds, cpu = self._gaps.popleft()
                seen = stack if since == looked_at else ()
                if cpu >= self._seconds or (seen and not self._by_cpu):
                    self._tell(LoopStall(seconds, cpu, seen, is_over=True))
            since, used = self._sign
            cpu = max(0.0, self._cpu() - used - self._pause)
            seconds = time.monotonic() - since - self._pause
            if (cpu if self._by_cpu else seconds) < self._seconds:
                continue
            if since != looked_at:
                stack, looked_at = _stack_of(ident), since
            if stack and since != told_at and seconds >= STILL_SECONDS:
                told_at = since
                self._tell(LoopStall(seconds, cpu, stack, is_over=False))

    def _cpu(self) -> float:
        """Processor time of the loop's thread so far, in seconds."""
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:
            return 0.0  # The thread has ended.

    def _tell(self, held: LoopStall) -> None:
        # An import holds the loop once, mostly at the first request, and is nobody's fault.
        is_import = any(each.filename.startswith("<frozen importlib") for each in held.stack)
        if not (is_import or self._stopped.is_set()):
            self._on_held(held)


def _stack_of(ident: int) -> tuple[traceback.FrameSummary, ...]:
    """The innermost frames of a thread, inside its loop; none if it runs the loop's own code."""
    frame: FrameType | None = sys._current_frames().get(ident)
    if frame is None or frame.f_code.co_filename.startswith(_IDLE):
        return ()
    stack = traceback.extract_stack(frame, _FRAMES)
    inside = [each for each, it in enumerate(stack, 1) if it.filename.startswith(_IDLE)]
    return tuple(stack[inside[-1] if inside else 0 :])


_throttle: Final = Throttle(5.0)


def log_held(held: LoopStall) -> None:
    """Log what held the loop, with its stack: one line for each place in 5 seconds."""
    held_back = _throttle.admit(f"{held.place} {held.is_over}")
    if held_back is None:
        return
    stack, advice = held.stack, ""
    if own := held.of_project:
        # The way there, through the server and the consumer, is always the same.
        stack = stack[stack.index(own[0]) :]
        advice = ": await an asynchronous call there, or put the work into a thread (sync_to_async)"
    logger.warning(
        "The event loop %s held for %.0f ms (%.0f ms of processor time) by %s%s%s\n%s",
        "was" if held.is_over else "is still",
        held.seconds * 1000,
        held.cpu_seconds * 1000,
        held.place,
        advice,
        and_more(held_back),
        "".join(traceback.format_list(stack)).rstrip(),
    )
