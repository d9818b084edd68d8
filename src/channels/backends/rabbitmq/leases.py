"""Reading queues: a lease is a message that the broker has delivered and that is not acknowledged.

If the process dies, or its connection breaks, the broker gives all that it had on lease to others
at once.  The time of a lease is kept by its holder.

Each reader that waits is one consumer of the broker with a prefetch of one; a consumer whose
message is on lease gets no other.  When the lease ends and nobody waits, the consumer is cancelled
before the message is acknowledged, so that no more is delivered than is wanted.

In a channel that is delivered at least once, how often a message was leased stands in its envelope.
One that comes back is published again with the number that is due, at the head of its queue (with
the higher priority), and then the original is acknowledged; while the queue is full it is held back
unacknowledged.  What bears the broker's mark `redelivered` was delivered to a connection that
broke: it is put back in the same way with one attempt more, before anybody gets it.  So a message
that kills its readers is counted, and one that was on its way when the connection broke as well.

AMQP does not answer an acknowledgement: True says that it was written to a connection that stood.

RabbitMQ breaks a connection that has a message unacknowledged for longer than its
`consumer_timeout` (30 minutes); from 3.12 on these queues say that there is no such time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from functools import partial
from typing import Final, NamedTuple

from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelNotFoundEntity, DeliveryError

from channels.backends.driver import ReadDemand
from channels.backends.lease_table import LeaseTable
from channels.backends.rabbitmq.connection import RabbitMQConnection
from channels.exceptions import MalformedEnvelope
from channels.layers.envelope import Envelope, decode_envelope

#: Seconds for which an earlier declaration of a queue counts before it is consumed.
_FRESH_SECONDS: Final = 1.0
#: Seconds between attempts to read a queue that cannot be read, or to put back into a full one.
_AGAIN_SECONDS: Final = 0.25


class _ConsumedQueue:
    """A queue that is read over this connection."""

    def __init__(self, demand: ReadDemand) -> None:
        self.demand = demand
        #: Tags of the consumers that have no message, and how many messages are on lease.
        self.idle: set[str] = set()
        self.held = 0
        self.adjusting: asyncio.Task[None] | None = None
        #: Held from a copy's publication until its original is acknowledged: a copy that kills this
        #: process before that would be in the queue twice.
        self.returning = asyncio.Lock()


class _Delivery(NamedTuple):
    """A message that is not acknowledged; an envelope of None: it is none."""

    reader: _ConsumedQueue
    consumer: str
    tag: int
    envelope: Envelope | None

    def counted(self) -> _Delivery:
        """The same after another attempt."""
        if self.envelope is None:
            return self
        return self._replace(envelope=self.envelope.again(self.envelope.attempts + 1))


class RabbitMQLeases:
    """The leases and the consumers of one connection."""

    def __init__(self, connection: RabbitMQConnection, counters: Counter[str]) -> None:
        self._connection = connection
        self._counters = counters
        self._channel = connection.leases
        self._channel.on_consumer_cancel_callbacks.add(self._consumer_is_gone)
        self._readers: dict[str, _ConsumedQueue] = {}
        self._table = LeaseTable[_Delivery](self._run_out)
        self._consumers = itertools.count(1)

    def serve(self, demand: ReadDemand) -> None:
        reader = self._readers.setdefault(demand.queue, _ConsumedQueue(demand))
        reader.demand = demand
        self._adjust(reader)

    def shut(self) -> None:
        """The connection is no more, and nor are its leases."""
        if self._table:
            self._counters["leases_broken"] += len(self._table)
        self._table.clear()

    async def count(self, queue: str) -> int:
        return await self._connection.count(queue)

    # The end of a lease.

    async def acknowledge(self, token: bytes) -> bool:
        if (delivery := self._table.end(token)) is None:
            return False
        await self._settle(delivery)
        return True

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        if (delivery := self._table.end(token)) is None:
            return False
        if counted:
            delivery = delivery.counted()
        if delay > 0:
            self._connection.spawn(self._put_back(delivery, delay))
        elif counted or self._connection.names.keeps(delivery.reader.demand.queue):
            await self._put_back(delivery)
        else:
            # It counts no attempts, so the broker's mark does no harm.
            await self._settle(delivery, is_done=False)
        return True

    async def extend(self, token: bytes, seconds: float) -> bool:
        return self._table.extend(token, seconds)

    def _run_out(self, delivery: _Delivery) -> None:
        self._counters["leases_run_out"] += 1
        self._connection.spawn(self._put_back(delivery.counted()))

    async def _settle(self, delivery: _Delivery, *, is_done: bool = True) -> None:
        """Acknowledge the message, or have it requeued where it was.

        Its consumer gets the next one if somebody waits.
        """
        reader = delivery.reader
        reader.held -= 1
        if delivery.consumer in self._channel.consumers:
            if len(reader.idle) < reader.demand.count:
                reader.idle.add(delivery.consumer)
            else:
                await self._channel.basic_cancel(delivery.consumer, nowait=True)
        if is_done:
            await self._channel.basic_ack(delivery.tag)
        else:
            await self._channel.basic_nack(delivery.tag)
        self._tidy(reader)

    async def _put_back(self, delivery: _Delivery, delay: float = 0.0) -> None:
        """Publish it at the head of its queue, then acknowledge the original."""
        if delay:
            await asyncio.sleep(delay)
        reader = delivery.reader
        try:
            async with reader.returning:
                if delivery.envelope is not None:
                    queue = reader.demand.queue
                    await self._connection.push(queue, delivery.envelope, is_returned=True)
                await self._settle(delivery)
        except DeliveryError:
            self._counters["returns_to_full_queue"] += 1
            self._connection.spawn(self._put_back(delivery, _AGAIN_SECONDS))
            # Who waits gets what the queue is full of.
            self._adjust(reader)

    # Consumers.

    def _adjust(self, reader: _ConsumedQueue) -> None:
        """Have as many idle consumers as are wanted."""
        if reader.adjusting is None and len(reader.idle) != reader.demand.count:
            reader.adjusting = self._connection.spawn(self._adjust_in_turn(reader))
        self._tidy(reader)

    async def _adjust_in_turn(self, reader: _ConsumedQueue) -> None:
        try:
            while len(reader.idle) != reader.demand.count:
                if len(reader.idle) < reader.demand.count:
                    await self._add_consumer(reader)
                else:
                    await self._channel.basic_cancel(reader.idle.pop())
        except AMQPError as error:
            self._connection.fail(error)
        finally:
            reader.adjusting = None
            self._tidy(reader)

    def _tidy(self, reader: _ConsumedQueue) -> None:
        if not (reader.demand.count or reader.idle or reader.held or reader.adjusting):
            self._readers.pop(reader.demand.queue, None)

    async def _add_consumer(self, reader: _ConsumedQueue) -> None:
        try:
            queue = await self._connection.declare(reader.demand.queue, _FRESH_SECONDS)
        except ChannelNotFoundEntity:
            await asyncio.sleep(_AGAIN_SECONDS)
            return
        consumer = f"{next(self._consumers)} {reader.demand.queue}"
        # The first delivery may come before the answer.
        reader.idle.add(consumer)
        take = partial(self._take, reader, consumer)
        await self._channel.basic_consume(queue, take, consumer_tag=consumer)

    async def _take(self, reader: _ConsumedQueue, consumer: str, message: DeliveredMessage) -> None:
        reader.idle.discard(consumer)
        reader.held += 1
        try:
            envelope = decode_envelope(message.body)
        except MalformedEnvelope:
            # Its taker will find out.
            envelope = None
        delivery = _Delivery(reader, consumer, message.delivery_tag or 0, envelope)
        keeps = self._connection.names.keeps(reader.demand.queue)
        if envelope is not None and message.redelivered and keeps:
            await self._put_back(delivery.counted())
            return
        async with reader.returning:
            pass
        if not self._connection.ended.done():
            token = self._table.add(delivery, reader.demand.seconds)
            attempts = envelope.attempts + 1 if envelope is not None else 1
            reader.demand.take(envelope or message.body, token, attempts)

    def _consumer_is_gone(self, frame: spec.Basic.Cancel) -> None:
        """The broker has cancelled a consumer: its queue was deleted."""
        consumer = frame.consumer_tag or ""
        reader = self._readers.get(consumer.partition(" ")[2])
        if reader is not None:
            reader.idle.discard(consumer)
            self._connection.forget(reader.demand.queue)
            self._adjust(reader)
