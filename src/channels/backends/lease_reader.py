"""Reading queues of a broker that gives leases when it is asked, and wakes who waits.

One question at a time for each queue, for as many messages as are demanded.  A question whose
answer was lost is asked again with the same token, which gives the same leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.contract import Leased, Taker
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: Messages leased with one question at most.
MOST_LEASED: Final = 100


class LeaseCalls(Protocol):
    """How a broker is asked for leases."""

    @property
    def notes_waiting(self) -> bool:
        """Constant: a queue that holds less than it was asked for notes this process as waiting.

        It does so until it is asked for nothing.
        """

    @property
    def is_open(self) -> bool:
        """Whether `begin_lease` takes a question."""

    def new_token(self) -> Any:
        """What names the leases of one question."""

    def begin_lease(
        self, queue: str, token: Any, count: int, seconds: float
    ) -> asyncio.Future[Any]:
        """Ask for up to `count` leases of `seconds` each.

        Raises ChannelLayerUnavailable if too many questions wait.
        """

    def read_leases(self, answer: Any) -> Sequence[tuple[bytes, Envelope | bytes, int]]:
        """Of an answer: token, message and attempts of each lease."""

    def release(self, token: bytes, delay: float, counted: bool) -> Awaitable[bool]:
        """As `WorkQueue.release`."""


class QueueDemand:
    """What is demanded of one queue, and what was asked for."""

    __slots__ = ("asked", "count", "is_asking", "is_noted", "is_woken", "name", "seconds", "taker")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.seconds = 0.0
        self.taker: Taker = lambda _: None
        #: (token, count) of a call whose answer has not come; kept over a lost connection.
        self.asked: tuple[Any, int] | None = None
        self.is_asking = False
        #: There was a wake-up while it was asking.
        self.is_woken = False
        #: The queue has this process noted as waiting.
        self.is_noted = False


class LeaseReader:
    """Leases from queues as demanded.

    Args:
        ticker: Told when leases run out.
    """

    def __init__(self, calls: LeaseCalls, ticker: Ticker) -> None:
        self._calls = calls
        self._ticker = ticker
        self._queues: dict[str, QueueDemand] = {}
        self._answers: set[asyncio.Future[Any]] = set()
        self._is_closing = False
        self._unwanted: list[Leased] = []

    def demand(self, name: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        queue = self._queues.get(name)
        if queue is None:
            if count <= 0:
                return
            queue = self._queues[name] = QueueDemand(name)
        queue.count, queue.seconds, queue.taker = max(0, count), seconds, taker
        self._ask(queue)

    @property
    def names(self) -> list[str]:
        """The queues that are read, or were a moment ago."""
        return list(self._queues)

    def woken(self, name: str) -> None:
        """There is something in this queue for a process that waits."""
        queue = self._queues.get(name)
        if queue is not None:
            # If it is not wanted any more, the next that waits is woken.
            queue.is_noted = True
            self._ask(queue)

    def resume(self) -> None:
        """Connected, or another look: ask for what is demanded, and what was not answered."""
        for queue in list(self._queues.values()):
            self._ask(queue)

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

    def _ask(self, queue: QueueDemand) -> None:
        if queue.is_asking:
            queue.is_woken = True
            return
        if queue.asked is None:
            if queue.count <= 0 and not (queue.is_noted and self._calls.notes_waiting):
                del self._queues[queue.name]
                return
            queue.asked = self._calls.new_token(), min(MOST_LEASED, queue.count)
        if not self._calls.is_open or self._is_closing:
            return
        try:
            answer = self._calls.begin_lease(queue.name, *queue.asked, queue.seconds)
        except ChannelLayerUnavailable:
            # The next look asks again.
            queue.asked = None
            return
        queue.is_asking, queue.is_woken = True, False
        self._answers.add(answer)
        answer.add_done_callback(partial(self._answered, queue))

    def _answered(self, queue: QueueDemand, answer: asyncio.Future[Any]) -> None:
        self._answers.discard(answer)
        queue.is_asking = False
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is not None:
            # Asked again when the connection is back, or with the next look.
            logger.debug("Cannot take from %s: %r", queue.name, error)
            return
        assert queue.asked is not None, "it was asked"
        _, count = queue.asked
        queue.asked = None
        found = self._calls.read_leases(answer.result())
        taken = [Leased(queue.name, data, token, attempts) for token, data, attempts in found]
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
