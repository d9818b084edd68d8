"""For backends whose queues are read by waiting: demand turned into a loop of pulls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from channels.exceptions import TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.envelope import Envelope
from channels.layers.transport import TransportEvents

logger = logging.getLogger("channels.layers")

Pull = Callable[[str, int], Awaitable[Sequence[Envelope | bytes]]]


class Puller:
    """Implements `Transport.demand` with one pull at a time per queue.

    Args:
        pull: Waits until the queue has something and takes at most so many.  When it is cancelled
            after the broker has handed some over, it gives those to `events.on_pulled` itself or
            puts them back.  May raise `TransportDown`: the pull is tried again after `resume`.
    """

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self._events: TransportEvents | None = None
        self._scope = TaskScope("queue readers")
        self._demand: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, events: TransportEvents) -> None:
        """Call it in the transport's `start`."""
        self._events = events
        self._scope = TaskScope("queue readers")

    def demand(self, queue: str, count: int) -> None:
        """As `Transport.demand`."""
        if count <= 0:
            self._demand.pop(queue, None)
            task = self._tasks.pop(queue, None)
            if task is not None:
                task.cancel()
            return
        self._demand[queue] = count
        if queue not in self._tasks:
            self._tasks[queue] = self._scope.spawn(self._read(queue), name=f"reader of {queue}")

    def resume(self) -> None:
        """The transport is up: read again what is in demand."""
        for queue, count in list(self._demand.items()):
            self.demand(queue, count)

    async def close(self) -> None:
        """Call it in the transport's `stop`."""
        self._demand.clear()
        self._tasks.clear()
        await self._scope.close()

    def abandon(self) -> None:
        """Call it in the transport's `abandon`."""
        self._demand.clear()
        self._tasks.clear()

    async def _read(self, queue: str) -> None:
        me = asyncio.current_task()
        assert self._events is not None, "demand comes after start"
        try:
            while (count := self._demand.get(queue, 0)) > 0:
                taken = await self._pull(queue, count)
                self._demand[queue] = self._demand.get(queue, 0) - len(taken)
                for data in taken:
                    self._events.on_pulled(queue, data)
            self._demand.pop(queue, None)
        except TransportDown:
            pass
        finally:
            if self._tasks.get(queue) is me:
                del self._tasks[queue]
