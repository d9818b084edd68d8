"""One queue as this process reads it: who waits for it, and what cancelled readers left."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from operator import attrgetter

from channels.fanout.event import Event
from channels.layers.contract import Leased


class Taken:
    """A message that was leased to this process.

    Attributes:
        number: In the order of arrival.
        until: When the lease is over, by this process's monotonic clock.
        event: The message, once the envelope was opened.
        asked: How often the broker was told that it is done.
        is_acknowledged: The broker has forgotten it: this process has the only copy.
    """

    __slots__ = ("asked", "event", "is_acknowledged", "leased", "number", "until")

    def __init__(self, leased: Leased, number: int, until: float) -> None:
        self.leased = leased
        self.number = number
        self.until = until
        self.event: Event | None = None
        self.asked = 0
        self.is_acknowledged = False


class Waiter:
    """A reader that waits on some loop."""

    __slots__ = ("answer", "is_plain", "loop")

    def __init__(self, is_plain: bool) -> None:
        self.is_plain = is_plain
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Taken] = self.loop.create_future()


class ReadQueue:
    """One queue as this process reads it."""

    __slots__ = ("asked", "is_timed", "kept", "seconds", "unsettled", "waiters")

    def __init__(self, seconds: float) -> None:
        #: How long its leases run.
        self.seconds = seconds
        self.waiters: deque[Waiter] = deque()
        #: What cancelled readers left, in the order of arrival.
        self.kept: list[Taken] = []
        #: How many the transport may still bring; not counted for a direct one, which is told all.
        self.asked = 0
        #: `asked` will be brought down to the readers there are, and what is kept released.
        self.is_timed = False
        #: Acknowledgements and releases for cancelled readers that are under way: until they are
        #: done nothing is asked for or handed over, which would overtake these.
        self.unsettled = 0

    @property
    def is_used(self) -> bool:
        return bool(self.waiters or self.kept or self.asked or self.is_timed or self.unsettled)

    def next_pair(self) -> tuple[Taken, Waiter] | None:
        """Remove and return the first message and the first reader that can have it."""
        if self.unsettled or not self.waiters:
            return None
        for taken in self.kept:
            for waiter in self.waiters:
                if waiter.is_plain or not taken.is_acknowledged:
                    self.kept.remove(taken)
                    self.waiters.remove(waiter)
                    return taken, waiter
        return None

    def keep(self, taken: Taken) -> None:
        """Keep a message, in its place."""
        if not self.kept or self.kept[-1].number < taken.number:
            self.kept.append(taken)
        else:
            insort(self.kept, taken, key=attrgetter("number"))

    def remove_leased(self) -> list[Taken]:
        """Remove and return what is kept and not acknowledged."""
        found = [taken for taken in self.kept if not taken.is_acknowledged]
        self.kept = [taken for taken in self.kept if taken.is_acknowledged]
        return found
