"""Callers of `drain` that wait until there is room again."""

from __future__ import annotations

import asyncio


class Waiters:
    """Who waits on one outlet."""

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            self._waiting.remove(waiter)

    def wake(self) -> None:
        """Let all of them look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
