"""One timer for many things that become due, in a process that may have no event loop.

It runs on the layers' daemon thread, which is started by the first thing that must wait.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final

from channels.fanout.delivery import post
from channels.kit.clock import Clock
from channels.layers.process.owner import loop_thread

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
        #: The time that the timer is set to; written on the thread, and by `cancel`.
        self._at = _NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Ring at this time, unless an earlier one is set."""
        if at is not None and at < self._at:
            post(loop_thread.loop(), partial(self._arm, at))

    def cancel(self) -> None:
        """Be set to nothing; a timer that runs already rings, to find nothing due."""
        self._at, self._timer = _NEVER, None

    def _arm(self, at: float) -> None:
        if at < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            wait = min(LONGEST, max(0.0, at - self._clock.monotonic()))
            self._timer = asyncio.get_running_loop().call_later(wait, self._due)

    def _due(self) -> None:
        # First: what is set from here on may be missed by the look at what is due.
        self._at, self._timer = _NEVER, None
        ring = self._ring()
        if ring is not None and (at := ring()) is not None:
            self._arm(at)
