"""The readers of queues on one server: they lease what is demanded, and wait without a connection.

A queue that holds less than was asked for notes this process as waiting.  Who puts a message into
it wakes the process that came last: by a word in its inbox, or over its subscription.  A process
that died is passed over by that; for what it was woken and can no longer take, and for all else
that gets lost, each queue is looked at again every few seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from channels.backends.redis.held import HeldCalls
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.contract import Leased

logger = logging.getLogger("channels.layers")

#: Seconds between two looks at a queue that nobody was woken for.
LOOK_SECONDS: Final = 4.0
#: Messages leased with one command at most.
BATCH: Final = 100

Taker = Callable[[Leased], None]


class ReadQueue:
    """What is demanded of one queue, and what was asked for."""

    __slots__ = ("asked", "count", "is_asking", "is_noted", "is_woken", "name", "seconds", "taker")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.seconds = 0.0
        self.taker: Taker = lambda _: None
        #: (token, count) of a call whose answer has not come; kept over a lost connection.
        self.asked: tuple[str, int] | None = None
        self.is_asking = False
        #: There was a wake-up while it was asking.
        self.is_woken = False
        #: The queue has this process noted as waiting.
        self.is_noted = False


class QueueReader:
    """Leases from the queues of one server as demanded."""

    def __init__(self, calls: HeldCalls, ticker: Ticker) -> None:
        self._calls = calls
        self._ticker = ticker
        self._queues: dict[str, ReadQueue] = {}
        self._numbers = itertools.count(1)
        self._answers: set[asyncio.Future[Any]] = set()
        self._is_closing = False
        self._unwanted: list[Leased] = []

    def demand(self, name: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        queue = self._queues.get(name)
        if queue is None:
            if count <= 0:
                return
            queue = self._queues[name] = ReadQueue(name)
        queue.count, queue.seconds, queue.taker = max(0, count), seconds, taker
        self._ask(queue)

    def woken(self, name: str) -> None:
        """There is something in this queue for a process that waits."""
        queue = self._queues.get(name)
        if queue is not None:
            # If it is not wanted any more, the next that waits is woken.
            queue.is_noted = True
            self._ask(queue)

    def resume(self) -> None:
        """Connected: ask for what is demanded, and once more for what was not answered."""
        for queue in list(self._queues.values()):
            self._ask(queue)

    async def run(self) -> None:
        """Look at the queues now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.resume()

    async def quiesce(self) -> None:
        """Take nothing more and wait no more; what is being taken is put back."""
        for queue in list(self._queues.values()):
            queue.count = 0
            self._ask(queue)
        self._is_closing = True
        while self._answers:
            await asyncio.wait(self._answers)
        try:
            for leased in reversed(self._unwanted):
                await self._calls.release(leased.token, 0.0, counted=False)
        except (TransportDown, ChannelLayerUnavailable) as error:
            logger.debug("Messages are not put back before their leases end: %s", error)

    def _ask(self, queue: ReadQueue) -> None:
        if queue.is_asking:
            queue.is_woken = True
            return
        if queue.asked is None:
            if queue.count <= 0 and not queue.is_noted:
                del self._queues[queue.name]
                return
            token = f"{self._calls.session}:{next(self._numbers)}:"
            queue.asked = token, min(BATCH, queue.count)
        if not self._calls.line.is_open or self._is_closing:
            return
        queue.is_asking, queue.is_woken = True, False
        answer = self._calls.begin_lease(queue.name, *queue.asked, queue.seconds)
        self._answers.add(answer)
        answer.add_done_callback(partial(self._answered, queue))

    def _answered(self, queue: ReadQueue, answer: asyncio.Future[Any]) -> None:
        self._answers.discard(answer)
        queue.is_asking = False
        if answer.cancelled() or (error := answer.exception()) is not None:
            # Asked again when the connection is back, or with the next look.
            logger.debug("Cannot take from %s: %s", queue.name, error)
            return
        assert queue.asked is not None, "it was asked"
        _, count = queue.asked
        queue.asked = None
        taken = [
            Leased(queue.name, data, token, attempts) for token, data, attempts in answer.result()
        ]
        queue.is_noted = len(taken) < count
        if taken:
            self._ticker.due_in(queue.seconds)
        if self._is_closing:
            self._unwanted += taken
            return
        queue.count = max(0, queue.count - len(taken))
        for leased in taken:
            queue.taker(leased)
        if queue.is_woken or not queue.count or not queue.is_noted:
            self._ask(queue)
