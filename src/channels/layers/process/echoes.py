"""Keeps a process's own sends in order where they take two roads.

A group's envelopes come back from the broker to their sender too, in the one order that all nodes
see.  A send to a channel of the own process is delivered without the broker.  So that a send after
a group_send does not overtake it, it waits until what was published before has come back.
"""

from __future__ import annotations

import asyncio


class Echoes:
    """The own envelopes under way to groups that this node has joined; waits on the owner loop.

    Attributes:
        awaited: The number of the last one that is being published or was; 0: it has come back.
            Set by the sender, on any thread.
        longest_seconds: How long a broker may take for an envelope, and again for its echo; what
            takes longer was lost, or its group was left.
    """

    def __init__(self, longest_seconds: float = 1.0) -> None:
        self.awaited = 0
        self.longest_seconds = longest_seconds
        #: Number of an envelope -> who goes on when it has come back.
        self._waiters: dict[int, asyncio.Future[None]] = {}

    def seen(self, seq: int) -> None:
        """It has come back, and with it all that was published before."""
        if seq == self.awaited:
            self.awaited = 0
        if self._waiters and (waiter := self._waiters.pop(seq, None)) is not None:
            waiter.set_result(None)

    def settle(self) -> None:
        """Await none: they may have been lost."""
        self.awaited = 0
        for waiter in self._waiters.values():
            waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        """Until what has been published by now has come back, or is taken for lost."""
        seq = self.awaited
        if not seq:
            return
        waiter = self._waiters.get(seq)
        if waiter is None:
            waiter = self._waiters[seq] = asyncio.get_running_loop().create_future()
        await asyncio.wait([waiter], timeout=2 * self.longest_seconds)
        if not waiter.done():
            self.seen(seq)
