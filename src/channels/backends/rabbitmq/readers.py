"""Reading at most once: a message leaves its queue when it is taken.

A message that the broker delivers is moved in one transaction from its queue to this process's own
`hand` queue, and comes to its reader from there.  If the connection breaks, either the transaction
was carried out, and the message waits here for the reconnect, or it was not, and the message is
still in its queue, at its place.  So none is lost or doubled, whatever breaks but the broker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from channels.backends.rabbitmq.channel import AmqpChannel, Properties
from channels.backends.rabbitmq.consumers import Consumers
from channels.backends.rabbitmq.transactions import Transactions


class Readers(Consumers):
    """All readers of this process that do not lease.

    Args:
        hand: The name of this process's own queue.
        properties: Makes those of a message from this channel that is handed over.
    """

    def __init__(
        self,
        declare: Callable[[str], Awaitable[Sequence[str]]],
        forget: Callable[[str], None],
        spawn: Callable[..., asyncio.Task[Any]],
        *,
        hand: Callable[[], str],
        properties: Callable[[str], Properties],
    ) -> None:
        super().__init__(declare, forget, spawn)
        self._hand = hand
        self._properties = properties
        #: Messages of each channel that are on their way over the `hand` queue.
        self._moving: Counter[str] = Counter()

    def open(self, channel: AmqpChannel) -> None:
        # What was under way and has not come by now was not carried out.
        self._moving.clear()
        super().open(channel)

    def arrived(self, channel: str) -> None:
        """A message of the channel has come over the `hand` queue."""
        self._moving[channel] -= 1
        if self._moving[channel] <= 0:
            del self._moving[channel]
        self.satisfied(channel)

    def wanted(self, channel: str) -> int:
        return super().wanted(channel) - self._moving[channel]

    def take(
        self, channel: str, transactions: Transactions, method: Any, _: Any, body: bytes
    ) -> None:
        wanted = self.wanted(channel)
        if wanted <= 0:
            transactions.reject(method.delivery_tag)
        else:
            transactions.publish(self._hand(), self._properties(channel), body)
            self._moving[channel] += 1
            if wanted == 1:
                self._stop(channel)
            transactions.acknowledge(method.delivery_tag)
        transactions.commit()
