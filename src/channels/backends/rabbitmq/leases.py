"""Reading at least once: a lease is a message that the broker has delivered and not had back.

If the process dies, or its connection breaks, the broker gives all that it had on lease to others
at once.  The time of a lease is kept by its holder, who puts the message back when it has run out.

The broker says of a message that it was delivered before, not how often.  So the number of attempts
that have ended is in the headers (`tickets`).  What is put back is published with the number that
is due and acknowledged in one transaction.  What comes back from a broken connection bears the
broker's mark (`redelivered`): whoever gets it puts it back with one more in its headers before
anybody may have it.  So a message that was on its way when the connection broke is counted as well.

Since RabbitMQ 3.8.15 a delivery must not stay unacknowledged for longer than its `consumer_timeout`
(30 minutes); else it closes the channel, which here ends the connection and all its leases.  From
3.12 on these queues say themselves that there is no such time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from channels.backends.rabbitmq.channel import AmqpChannel, Properties
from channels.backends.rabbitmq.consumers import Consumers
from channels.backends.rabbitmq.tickets import attempts_of
from channels.backends.rabbitmq.transactions import Transactions
from channels.exceptions import TransportDown
from channels.layers.contract import Leased

Taker = Callable[[Leased], None]


class _Lease:
    __slots__ = ("body", "channel", "ended", "tag", "timer")

    def __init__(
        self, channel: str, tag: int, ended: int, body: bytes, timer: asyncio.TimerHandle
    ) -> None:
        self.channel = channel
        self.tag = tag
        #: Attempts before this one.
        self.ended = ended
        self.body = body
        self.timer = timer


class Places(Protocol):
    """Where messages are put back to."""

    def head(self, channel: str, attempts: int, body: bytes) -> tuple[str, Properties]:
        """(queue, properties) that put a message before those of its channel."""

    def later(self, channel: str, attempts: int, delay: float) -> tuple[str, Properties]:
        """The same after so many seconds."""


class Leases(Consumers):
    """All leases of this process, and the readers that wait for more.

    Args:
        restore: Given a message that was put back where no queue is any more.
    """

    def __init__(
        self,
        declare: Callable[[str], Awaitable[Sequence[str]]],
        forget: Callable[[str], None],
        spawn: Callable[..., asyncio.Task[Any]],
        *,
        places: Places,
        restore: Callable[[Properties, bytes], None],
        counters: Counter[str],
    ) -> None:
        super().__init__(declare, forget, spawn)
        self._places = places
        self._restore = restore
        self._counters = counters
        self._terms: dict[str, tuple[float, Taker]] = {}
        self._leases: dict[bytes, _Lease] = {}
        #: Part of each token: delivery tags begin anew with each connection.
        self._connections = itertools.count(1)
        self._connection = 0
        self._is_closing = False

    def open(self, channel: AmqpChannel) -> None:
        self._connection = next(self._connections)
        super().open(channel)

    def shut(self) -> None:
        super().shut()
        for lease in self._leases.values():
            lease.timer.cancel()
        if self._leases:
            self._counters["leases_broken"] += len(self._leases)
        self._leases.clear()

    async def quiesce(self) -> None:
        self._is_closing = True
        await super().quiesce()

    def demand_leased(self, channel: str, count: int, seconds: float, taker: Taker) -> None:
        """As `LeasingTransport.demand_leased`."""
        if count > 0:
            self._terms[channel] = (seconds, taker)
        self.demand(channel, count)

    def take(
        self, channel: str, transactions: Transactions, method: Any, properties: Any, body: bytes
    ) -> None:
        tag = method.delivery_tag
        ended = attempts_of(properties)
        if method.redelivered or self._is_closing:
            # Nothing else of the channel shall overtake it.
            self._stop(channel)
            back = self._places.head(channel, ended + bool(method.redelivered), body)
            self._put_back(transactions, tag, back, body)
            transactions.commit().add_done_callback(lambda _: self._adjust(channel))
            return
        seconds, taker = self._terms[channel]
        token = f"{self._connection}:{tag}".encode()
        timer = asyncio.get_running_loop().call_later(seconds, self._run_out, token)
        self._leases[token] = _Lease(channel, tag, ended, body, timer)
        self.satisfied(channel)
        if self.wanted(channel) <= 0:
            self._stop(channel)
        taker(Leased(channel, body, token, ended + 1))

    def take_return(self, properties: Properties, body: bytes) -> None:
        self._counters["put_back_anew"] += 1
        self._restore(properties, body)

    # The ends of a lease.

    async def acknowledge(self, token: bytes) -> bool:
        """As `LeasingTransport.acknowledge`."""
        lease, transactions = self._end(token)
        if lease is None:
            return False
        transactions.acknowledge(lease.tag)
        await asyncio.shield(transactions.commit())
        return True

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """As `LeasingTransport.release`."""
        lease, transactions = self._end(token)
        if lease is None:
            return False
        ended = lease.ended + counted
        if delay > 0:
            back = self._places.later(lease.channel, ended, delay)
        else:
            back = self._places.head(lease.channel, ended, lease.body)
        self._put_back(transactions, lease.tag, back, lease.body)
        await asyncio.shield(transactions.commit())
        return True

    def extend(self, token: bytes, seconds: float) -> bool:
        """As `LeasingTransport.extend`."""
        self._require_transactions()
        lease = self._leases.get(token)
        if lease is None:
            return False
        lease.timer.cancel()
        lease.timer = asyncio.get_running_loop().call_later(seconds, self._run_out, token)
        return True

    def _end(self, token: bytes) -> tuple[_Lease | None, Transactions]:
        transactions = self._require_transactions()
        lease = self._leases.pop(token, None)
        if lease is not None:
            lease.timer.cancel()
        return lease, transactions

    def _require_transactions(self) -> Transactions:
        if self.transactions is None:
            raise TransportDown("RabbitMQ is not connected")
        return self.transactions

    def _run_out(self, token: bytes) -> None:
        lease, transactions = self._end(token)
        assert lease is not None, "its end would have cancelled the timer"
        self._counters["leases_run_out"] += 1
        back = self._places.head(lease.channel, lease.ended + 1, lease.body)
        self._put_back(transactions, lease.tag, back, lease.body)
        transactions.commit()

    def _put_back(
        self, transactions: Transactions, tag: int, back: tuple[str, Properties], body: bytes
    ) -> None:
        transactions.publish(*back, body)
        transactions.acknowledge(tag)
