"""One timer for many things that become due, in a process that may have no event loop.

It runs on the layers' daemon thread, which is started by the first thing that must wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Final

from channels.kit.clock import Clock
from channels.layers.process.port import loop_thread

#: The timer looks again after so many seconds, whatever it was set to.
LONGEST: Final = 3600.0
_NEVER: Final = float("inf")


class Alarm:
    """Calls `ring` when its time has come; any thread may set it.

    Args:
        ring: A bound method.  Does what is due by `clock` and returns when to be called next, in
            monotonic seconds, or None.  Its object is not kept alive.
    """

    def __init__(self, clock: Clock, ring: Callable[[], float | None]) -> None:
        self._clock = clock
        self._ring = weakref.WeakMethod(ring)
        self._lock = threading.Lock()
        self._at = _NEVER
        #: Rises with each new timer; one that was overtaken does nothing.
        self._turn = 0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Ring at this time, unless an earlier one is set."""
        with self._lock:
            if at is None or at >= self._at:
                return
            self._at = at
            self._turn += 1
            turn = self._turn
        loop = loop_thread.loop()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._arm, turn, loop)

    def cancel(self) -> None:
        """Ring no more until it is set again."""
        with self._lock:
            self._turn += 1
            self._at = _NEVER
            # Not cancelled, which is the other thread's affair: its turn is over.
            self._handle = None

    def _arm(self, turn: int, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if turn != self._turn:
                return
            if self._handle is not None:
                self._handle.cancel()
            wait = min(LONGEST, max(0.0, self._at - self._clock.monotonic()))
            self._handle = loop.call_later(wait, self._due, turn)

    def _due(self, turn: int) -> None:
        with self._lock:
            if turn != self._turn:
                return
            self._at, self._handle = _NEVER, None
        ring = self._ring()
        if ring is not None:
            self.set(ring())
