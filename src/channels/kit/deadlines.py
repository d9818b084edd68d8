"""Timeouts of one length, many at a time, with one timer for all of them.

`asyncio.timeout` sets a timer for each use and takes it back, which takes 5 µs: as much as all the
rest of a send through a channel layer.  This takes 1.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self


class SharedTimeout:
    """What is under way on one event loop and may take `seconds` each."""

    __slots__ = ("seconds", "timer", "under_way")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: In the order in which they are due, since all have the same time.
        self.under_way: dict[Deadline, None] = {}
        self.timer: asyncio.TimerHandle | None = None

    def watch(self, seconds: float) -> None:
        """Look in so many seconds at what is due; on the loop."""
        self.timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self.timer = None
        while self.under_way:
            first = next(iter(self.under_way))
            left = first.due - time.monotonic()
            if left > 0:
                self.watch(left)
                return
            del self.under_way[first]
            first.expire()


class Deadline:
    """A context that raises TimeoutError when the running task is in it for too long.

        with Deadline(deadlines):
            await something

    As `asyncio.timeout` does it: the task is cancelled, and that becomes TimeoutError on leaving
    the context, unless others have cancelled the task too.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "due", "is_over")

    def __init__(self, deadlines: SharedTimeout) -> None:
        self._deadlines = deadlines
        self.is_over = False

    def __enter__(self) -> Self:
        task, deadlines = asyncio.current_task(), self._deadlines
        if task is None:
            raise RuntimeError("A deadline is for a task: found none that runs.")
        self._task = task
        self._cancelling = task.cancelling()
        self.due = time.monotonic() + deadlines.seconds
        deadlines.under_way[self] = None
        if deadlines.timer is None:
            deadlines.watch(deadlines.seconds)
        return self

    def expire(self) -> None:
        """The time is over."""
        self.is_over = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.is_over:
            del self._deadlines.under_way[self]
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
