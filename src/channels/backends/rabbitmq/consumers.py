"""Taking from queues: as many messages as readers wait for, each by exactly one process.

A consumer lives while readers wait.  The message that satisfies the last one cancels it before
that message is acknowledged, so that the broker delivers no more than is wanted, and capacities
stay exact.

A channel may have several queues (`Names.sources`).  All but the last are emptied first, one
message at a time; while the last has some they are not asked again, when it has none all are
waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, Properties
from channels.backends.rabbitmq.transactions import Transactions

#: Seconds without a message of the last queue after which the others are waited for too.
_IDLE_SECONDS: Final = 0.02
#: Seconds between attempts to declare a queue that the broker does not give.
_AGAIN_SECONDS: Final = 0.5
_MOST_PREFETCHED: Final = 65_535


class _Consumer:
    """The broker's consumers of one channel's queues."""

    __slots__ = ("prefetch", "tags", "timer")

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        #: Tag -> done once the broker has it.
        self.tags: dict[str, asyncio.Future[Any]] = {}
        self.timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Consumers:
    """The demand for channels, and the AMQP channel of the moment that serves it.

    Args:
        declare: Sees to it that a channel's queues exist; returns their names, the last as above.
        forget: Told of a channel that has lost a queue.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        declare: Callable[[str], Awaitable[Sequence[str]]],
        forget: Callable[[str], None],
        spawn: Callable[..., asyncio.Task[Any]],
    ) -> None:
        self.transactions: Transactions | None = None
        self._declare = declare
        self._forget = forget
        self._spawn = spawn
        self._demand: dict[str, int] = {}
        self._consumers: dict[str, _Consumer] = {}
        #: Consumer tag -> channel, until the broker has confirmed its end.
        self._channels: dict[str, str] = {}
        self._starting: dict[str, asyncio.Task[Any]] = {}
        self._numbers = 0

    def take(
        self, channel: str, transactions: Transactions, method: Any, properties: Any, body: bytes, /
    ) -> None:
        """What becomes of a message; it must be acknowledged some time.  May be one too many."""
        raise NotImplementedError

    def take_return(self, properties: Properties, body: bytes) -> None:
        """A message that was published and has found no queue."""

    def open(self, channel: AmqpChannel) -> None:
        """Connected: serve what is in demand."""
        self.transactions = Transactions(channel)
        channel.on_content = self._take_content
        channel.on_method = self._take_method
        for each in list(self._demand):
            self._adjust(each)

    def shut(self) -> None:
        """The connection broke; the demand stays."""
        self.transactions = None
        for consumer in self._consumers.values():
            consumer.stop_timer()
        self._consumers.clear()
        self._channels.clear()

    def demand(self, channel: str, count: int) -> None:
        """As `Transport.demand`."""
        if count > 0:
            self._demand[channel] = count
        else:
            self._demand.pop(channel, None)
        self._adjust(channel)

    def wanted(self, channel: str) -> int:
        """How many more messages readers wait for."""
        return self._demand.get(channel, 0)

    def satisfied(self, channel: str) -> None:
        """A reader of the channel has its message."""
        left = self._demand.get(channel, 0) - 1
        if left > 0:
            self._demand[channel] = left
        else:
            self._demand.pop(channel, None)

    async def quiesce(self) -> None:
        """Take nothing more, and wait until what was said is done."""
        self._demand.clear()
        for channel in list(self._consumers):
            self._stop(channel)
        while self._starting:
            await asyncio.wait(self._starting.values())
        if self.transactions is not None:
            await self.transactions.settle()

    def _adjust(self, channel: str) -> None:
        if self.transactions is None:
            return
        wanted, consumer = self.wanted(channel), self._consumers.get(channel)
        if consumer is not None and (wanted <= 0 or wanted > consumer.prefetch):
            self._stop(channel)
            consumer = None
        if wanted > 0 and consumer is None and channel not in self._starting:
            self._starting[channel] = self._spawn(
                self._start(channel, self.transactions), name=f"consumer of {channel}"
            )

    async def _start(self, channel: str, transactions: Transactions) -> None:
        try:
            queues = await self._declare_until(channel, transactions)
            for queue in queues[:-1]:
                await self._empty(channel, transactions, queue)
            wanted = self.wanted(channel)
            if queues and transactions is self.transactions and wanted > 0:
                self._consume(channel, transactions, queues, wanted)
        except Broken:
            pass
        finally:
            del self._starting[channel]
        # What was asked for meanwhile.
        self._adjust(channel)

    async def _declare_until(self, channel: str, transactions: Transactions) -> Sequence[str]:
        while transactions is self.transactions and self.wanted(channel) > 0:
            try:
                return await self._declare(channel)
            except Broken:
                await asyncio.sleep(_AGAIN_SECONDS)
        return ()

    async def _empty(self, channel: str, transactions: Transactions, queue: str) -> None:
        """Take one by one what is wanted and there."""
        while transactions is self.transactions and self.wanted(channel) > 0:
            found = await transactions.call(commands.Basic.Get(0, queue))
            if not isinstance(found, tuple) or transactions is not self.transactions:
                return
            self.take(channel, transactions, *found)
            # What it put back is there, should this be asked again.
            await transactions.settle()

    def _consume(
        self, channel: str, transactions: Transactions, queues: Sequence[str], wanted: int
    ) -> None:
        consumer = self._consumers[channel] = _Consumer(min(wanted, _MOST_PREFETCHED))
        self._add(channel, consumer, transactions, queues[-1:])
        if len(queues) > 1:
            consumer.timer = asyncio.get_running_loop().call_later(
                _IDLE_SECONDS, self._add, channel, consumer, transactions, queues[:-1]
            )

    def _add(
        self, channel: str, consumer: _Consumer, transactions: Transactions, queues: Sequence[str]
    ) -> None:
        # It holds for the consumers that follow.
        transactions.call(commands.Basic.Qos(0, consumer.prefetch, False))
        for queue in queues:
            self._numbers += 1
            tag = f"reader-{self._numbers}"
            self._channels[tag] = channel
            consume = commands.Basic.Consume(0, queue, tag)
            consumer.tags[tag] = transactions.call(consume)

    def _stop(self, channel: str) -> None:
        consumer = self._consumers.pop(channel, None)
        if consumer is None or self.transactions is None:
            return
        consumer.stop_timer()
        for tag, begun in consumer.tags.items():
            # A cancel that comes before the consumer has begun crashes RabbitMQ's channel.
            if begun.done():
                self._cancel(tag, self.transactions)
            else:
                begun.add_done_callback(partial(self._cancel, tag, self.transactions))

    def _cancel(self, tag: str, transactions: Transactions, _: object = None) -> None:
        ended = transactions.call(commands.Basic.Cancel(tag))
        # Until then it may have delivered.
        ended.add_done_callback(partial(self._ended, tag))

    def _ended(self, tag: str, _: object) -> None:
        self._channels.pop(tag, None)

    def _take_content(self, method: Any, properties: Any, body: bytes) -> None:
        if isinstance(method, commands.Basic.Return):
            self.take_return(properties, body)
        elif isinstance(method, commands.Basic.Deliver) and self.transactions is not None:
            tag = method.consumer_tag or ""
            channel = self._channels.get(tag)
            consumer = self._consumers.get(channel or "")
            if consumer is not None and tag in consumer.tags and not consumer.tags[tag].done():
                # It has begun, though we are told of that only with the next turn of the loop.
                consumer.tags[tag].set_result(None)
            if channel is None:
                self.transactions.reject(method.delivery_tag or 0)
                self.transactions.commit()
            else:
                self.take(channel, self.transactions, method, properties, body)

    def _take_method(self, frame: Any) -> None:
        """The broker has cancelled a consumer: its queue is gone."""
        if isinstance(frame, commands.Basic.Cancel):
            channel = self._channels.pop(frame.consumer_tag or "", None)
            if channel is not None:
                self._forget(channel)
                self._stop(channel)
                self._adjust(channel)
