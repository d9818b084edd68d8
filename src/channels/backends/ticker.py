"""Looks in time at what a broker holds back: what is delayed, and what is on lease.

A broker that does not do so by itself has it done by the processes that are connected to it.  Any
of them sees to what is due, so one that was killed leaves nothing behind that the others do not
find.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

#: Seconds between two looks, at most and at least.
LONGEST: Final = 5.0
SHORTEST: Final = 0.01

#: Puts what is due into its queue; gives the seconds until the next is due, or None.
Tick = Callable[[], Awaitable[float | None]]


class Ticker:
    """Knows when to look; on one loop at a time."""

    def __init__(self) -> None:
        self._at = 0.0
        self._sooner = asyncio.Event()

    def due_in(self, seconds: float) -> None:
        """Something of this process's is due then."""
        at = time.monotonic() + seconds
        if at < self._at:
            self._at = at
            self._sooner.set()

    async def run(self, tick: Tick) -> None:
        """Look at once and then in time, until cancelled or `tick` raises."""
        self._sooner = asyncio.Event()
        while True:
            # What becomes due from here on is not in the answer.
            self._at = time.monotonic() + LONGEST
            wait = await tick()
            if wait is not None:
                self.due_in(max(SHORTEST, wait))
            while (left := self._at - time.monotonic()) > 0:
                self._sooner.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._sooner.wait()
                except TimeoutError:
                    break
