"""Keeps a process's own sends in order where they take two roads.

A group's envelopes come back from the broker to their sender too, in the one order that all nodes
see.  A send to a channel of the own process is delivered without the broker.  So that a send after
a group_send does not overtake it, it waits until what was published before has come back.
"""

from __future__ import annotations

import asyncio


class Echoes:
    """Own envelopes under way to groups that this node has joined; on the owner loop.

    Attributes:
        longest_seconds: An echo that takes longer, once the broker has the envelope, was lost, or
            its group was left.
    """

    def __init__(self, longest_seconds: float = 1.0) -> None:
        self.longest_seconds = longest_seconds
        self._sent = 0
        self._seen = 0
        self._under_way: set[int] = set()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def due(self) -> bool:
        """True while an echo is awaited.  Any thread may ask."""
        return self._sent > self._seen

    def sent(self, seq: int) -> None:
        """An envelope with this number is being published.  Any thread may say so."""
        self._under_way.add(seq)
        self._sent = max(self._sent, seq)

    def published(self, seq: int) -> None:
        """The broker has it, or will never have it.  Any thread may say so."""
        self._under_way.discard(seq)

    def seen(self, seq: int) -> None:
        """It has come back."""
        if seq > self._seen:
            self._seen = seq
            self._answer()

    def settle(self) -> None:
        """Await none: they may have been lost."""
        self.seen(self._sent)

    async def wait(self) -> None:
        """Until what has been sent by now has come back, or is taken for lost."""
        if not self.due:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        upto = self._sent
        self._waiters.append((upto, waiter))
        while not waiter.done():
            # A broker that is slow to take an envelope has not lost it.
            may_be_lost = not any(seq <= upto for seq in list(self._under_way))
            await asyncio.wait([waiter], timeout=self.longest_seconds)
            if may_be_lost:
                self.seen(upto)

    def _answer(self) -> None:
        late = []
        for upto, waiter in self._waiters:
            if upto > self._seen:
                late.append((upto, waiter))
            elif not waiter.done():
                waiter.set_result(None)
        self._waiters = late
