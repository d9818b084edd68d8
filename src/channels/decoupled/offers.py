"""Connections at the edge that wait for a worker.

    what happens                         a new connection        one that a worker has had
    it waits                             offered                 offered, when there is room
    the queue of offers is full          refused with 503        offered when there is room
    `offer_again` passes, no claim       offered once more       offered again
    its time is over                     refused with 503        closed with 1012

Offers leave one after the other, so that a queue that is full is asked by one task and not by each
connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.kit.tasks import TaskScope
from channels.kit.types import Message

#: Between two attempts to offer to a queue that is full, in seconds, unless a claim comes before.
RETRY_SECONDS: Final = 0.1


class Offered(Protocol):
    """A connection, as it is offered.

    Attributes:
        was_owned: Whether a worker has had it.
        is_offered: Whether it waits for a worker.
    """

    id: int
    generation: int
    was_owned: bool
    is_offered: bool

    def refuse(self) -> None:
        """No worker has taken it in time."""


class Offers:
    """The offers of one edge.

    Args:
        send: Puts an offer into the queue; raises ChannelFull or ChannelLayerUnavailable.
        again_seconds: After which an offer is repeated.
    """

    def __init__(
        self,
        send: Callable[[Message], Awaitable[None]],
        again_seconds: float,
        counters: Counter[str],
    ) -> None:
        self._send = send
        self._again = again_seconds
        self._counters = counters
        self._tasks = TaskScope("offers of connections")
        self._is_sending = False
        #: Connection id -> (connection, its generation), in the order in which they are offered.
        #: Bounded by the number of connections.
        self._waiting: dict[int, tuple[Offered, int]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._room = asyncio.Event()

    def __len__(self) -> int:
        """How many connections wait for a worker."""
        return len(self._timers)

    def put(self, connection: Offered, seconds: float) -> None:
        """Offer a connection, for so long."""
        self._offer(connection, asyncio.get_running_loop().time() + seconds, is_repeated=False)

    def withdraw(self, connection: Offered) -> None:
        """The connection has an owner, or has gone."""
        timer = self._timers.pop(connection.id, None)
        if timer is not None:
            timer.cancel()
        self._waiting.pop(connection.id, None)
        # Whoever takes an offer makes room for another.
        self._room.set()

    async def close(self) -> None:
        """Offer nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        await self._tasks.close()

    def _offer(self, connection: Offered, due: float, *, is_repeated: bool) -> None:
        loop = asyncio.get_running_loop()
        wait = due - loop.time()
        # A new one is offered twice at most: where there are no workers, the queue would be full of
        # the same connections.
        if connection.was_owned or not is_repeated:
            wait = min(wait, self._again)
        self._timers[connection.id] = loop.call_later(wait, self._due, connection, due)
        self._waiting[connection.id] = (connection, connection.generation)
        if not self._is_sending:
            self._is_sending = True
            self._tasks.spawn(self._send_all(), name="offers")

    def _due(self, connection: Offered, due: float) -> None:
        if asyncio.get_running_loop().time() < due:
            self._counters["offers_repeated"] += 1
            self._offer(connection, due, is_repeated=True)
        else:
            self._expire(connection)

    def _expire(self, connection: Offered) -> None:
        self.withdraw(connection)
        self._counters["offers_expired"] += 1
        connection.refuse()

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                key = next(iter(self._waiting))
                connection, generation = self._waiting.pop(key)
                if not connection.is_offered or connection.generation != generation:
                    continue
                try:
                    await self._send({"id": connection.id, "generation": generation})
                    self._counters["offers"] += 1
                except (ChannelFull, ChannelLayerUnavailable):
                    await self._put_off(connection, generation)
        finally:
            self._is_sending = False

    async def _put_off(self, connection: Offered, generation: int) -> None:
        self._counters["offers_full"] += 1
        if connection.is_offered and not connection.was_owned:
            self._expire(connection)
            return
        self._waiting.setdefault(connection.id, (connection, generation))
        self._room.clear()
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._room.wait()
        except TimeoutError:
            pass
