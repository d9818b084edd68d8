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
from collections.abc import Callable
from typing import Final

from aiormq import spec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError, DeliveryError

from channels.backends.rabbitmq.session import QueueAway, RabbitMQSession
from channels.exceptions import MalformedEnvelope, TransportDown
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, decode_envelope

Taker = Callable[[Leased], None]

#: Seconds for which an earlier declaration of a queue counts before it is consumed.
_FRESH_SECONDS: Final = 1.0
#: Seconds between attempts to read a queue that cannot be read, or to put back into a full one.
_AGAIN_SECONDS: Final = 0.25


class _QueueConsumer:
    """Who waits for a channel."""

    taker: Taker

    def __init__(self, channel: str) -> None:
        self.channel = channel
        #: How many wait, and the seconds of a lease.
        self.count = 0
        self.seconds = 0.0
        #: Tags of the broker's consumers, and of those that have no message on lease.
        self.consumers: set[str] = set()
        self.idle: set[str] = set()
        self.adjusting: asyncio.Task[None] | None = None
        #: Held from a copy's publication until its original is acknowledged: a copy that kills this
        #: process before that would be in the queue twice.
        self.returning = asyncio.Lock()


class _Lease:
    """A message that was delivered to `consumer`, and is not acknowledged."""

    __slots__ = ("consumer", "envelope", "reader", "tag", "timer")

    def __init__(
        self, reader: _QueueConsumer, consumer: str, tag: int, envelope: Envelope | None
    ) -> None:
        self.reader = reader
        self.consumer = consumer
        self.tag = tag
        #: None: it is none, which its taker will find.
        self.envelope = envelope
        self.timer: asyncio.TimerHandle | None = None

    def count(self) -> None:
        """This was an attempt."""
        if self.envelope is not None:
            self.envelope = self.envelope.again(self.envelope.attempts + 1)


class RabbitMQLeases:
    """All leases of this process, and the readers that wait for more."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._session: RabbitMQSession | None = None
        self._readers: dict[str, _QueueConsumer] = {}
        self._leases: dict[bytes, _Lease] = {}
        #: Part of each token: delivery tags begin anew with each connection.
        self._connections = itertools.count(1)
        self._connection = 0
        self._consumers = itertools.count(1)

    # Life.

    def open(self, session: RabbitMQSession) -> None:
        """Connected: serve what is in demand."""
        self._session, self._connection = session, next(self._connections)
        session.leases.on_consumer_cancel_callbacks.add(self._consumer_is_gone)
        for reader in self._readers.values():
            self._adjust(reader)

    def shut(self) -> None:
        """The connection broke; the demand stays."""
        self._session = None
        for lease in self._leases.values():
            if lease.timer is not None:
                lease.timer.cancel()
        if self._leases:
            self._counters["leases_broken"] += len(self._leases)
        self._leases.clear()
        for reader in list(self._readers.values()):
            reader.consumers.clear()
            reader.idle.clear()
            reader.adjusting = None
            self._tidy(reader)

    # What `Transport` has.

    def demand(self, channel: str, count: int, seconds: float, taker: Taker) -> None:
        reader = self._readers.get(channel)
        if reader is None:
            reader = self._readers[channel] = _QueueConsumer(channel)
        reader.count, reader.seconds, reader.taker = count, seconds, taker
        self._adjust(reader)
        self._tidy(reader)

    async def acknowledge(self, token: bytes) -> bool:
        lease = self._end(token)
        if lease is None:
            return False
        await self._finish(lease)
        return True

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        lease = self._end(token)
        if lease is None:
            return False
        if counted:
            lease.count()
        if delay > 0:
            self._later(delay, lease)
        elif counted or self._require_session().names.keeps(lease.reader.channel):
            await self._put_back(lease)
        else:
            # It counts no attempts, so the broker's mark does no harm.
            await self._finish(lease, is_done=False)
        return True

    def extend(self, token: bytes, seconds: float) -> bool:
        self._require_session()
        lease = self._leases.get(token)
        if lease is None:
            return False
        self._set_timer(lease, token, seconds)
        return True

    # The end of a lease.

    def _require_session(self) -> RabbitMQSession:
        if self._session is None:
            raise TransportDown("RabbitMQ is not connected")
        return self._session

    def _set_timer(self, lease: _Lease, token: bytes, seconds: float) -> None:
        if lease.timer is not None:
            lease.timer.cancel()
        lease.timer = asyncio.get_running_loop().call_later(seconds, self._run_out, token)

    def _run_out(self, token: bytes) -> None:
        self._counters["leases_run_out"] += 1
        self._require_session().connection.spawn(self.release(token, 0, counted=True))

    def _end(self, token: bytes) -> _Lease | None:
        self._require_session()
        lease = self._leases.pop(token, None)
        if lease is not None and lease.timer is not None:
            lease.timer.cancel()
        return lease

    async def _finish(self, lease: _Lease, *, is_done: bool = True) -> None:
        """Acknowledge the message, or have it requeued where it was.

        Its consumer gets the next one if somebody waits.
        """
        session, reader = self._require_session(), lease.reader
        if lease.consumer in reader.consumers:
            if len(reader.idle) < reader.count:
                reader.idle.add(lease.consumer)
            else:
                reader.consumers.discard(lease.consumer)
                await session.leases.basic_cancel(lease.consumer, nowait=True)
        if is_done:
            await session.leases.basic_ack(lease.tag)
        else:
            await session.leases.basic_nack(lease.tag)
        self._tidy(reader)

    async def _put_back(self, lease: _Lease) -> None:
        """Publish it at the head of its queue, then acknowledge the original."""
        reader = lease.reader
        try:
            async with reader.returning:
                if lease.envelope is not None:
                    session = self._require_session()
                    await session.push(reader.channel, lease.envelope, is_returned=True)
                await self._finish(lease)
        except DeliveryError:
            self._counters["returns_to_full_queue"] += 1
            self._later(_AGAIN_SECONDS, lease)
            # Who waits gets what the queue is full of.
            self._adjust(reader)

    def _later(self, delay: float, lease: _Lease) -> None:
        async def put_back() -> None:
            await asyncio.sleep(delay)
            await self._put_back(lease)

        self._require_session().connection.spawn(put_back())

    # Consumers.

    def _adjust(self, reader: _QueueConsumer) -> None:
        """Have as many idle consumers as are wanted."""
        if self._session is None or reader.adjusting is not None:
            return
        if len(reader.idle) != reader.count:
            reader.adjusting = self._session.connection.spawn(
                self._adjust_in_turn(reader, self._session)
            )

    async def _adjust_in_turn(self, reader: _QueueConsumer, session: RabbitMQSession) -> None:
        try:
            while session is self._session and len(reader.idle) != reader.count:
                if len(reader.idle) < reader.count:
                    await self._add_consumer(reader, session)
                else:
                    consumer = reader.idle.pop()
                    reader.consumers.discard(consumer)
                    await session.leases.basic_cancel(consumer)
        except AMQPError as error:
            session.connection.fail(error)
        finally:
            if session is self._session:
                reader.adjusting = None
                self._tidy(reader)

    def _tidy(self, reader: _QueueConsumer) -> None:
        if not reader.count and not reader.consumers and reader.adjusting is None:
            self._readers.pop(reader.channel, None)

    async def _add_consumer(self, reader: _QueueConsumer, session: RabbitMQSession) -> None:
        try:
            queue = await session.declare(reader.channel, _FRESH_SECONDS)
        except QueueAway:
            await asyncio.sleep(_AGAIN_SECONDS)
            return
        consumer = f"reader-{next(self._consumers)}"

        async def take(message: DeliveredMessage) -> None:
            await self._take(reader, consumer, message)

        # The first delivery may come before the answer.
        reader.consumers.add(consumer)
        reader.idle.add(consumer)
        await session.leases.basic_consume(queue, take, consumer_tag=consumer)

    async def _take(self, reader: _QueueConsumer, consumer: str, message: DeliveredMessage) -> None:
        reader.idle.discard(consumer)
        tag, session = message.delivery_tag or 0, self._session
        if session is None:
            return
        try:
            envelope = decode_envelope(message.body)
        except MalformedEnvelope:
            envelope = None
        lease = _Lease(reader, consumer, tag, envelope)
        if envelope is not None and message.redelivered and session.names.keeps(reader.channel):
            lease.count()
            await self._put_back(lease)
            return
        async with reader.returning:
            pass
        if session is not self._session:
            return
        reader.count = max(0, reader.count - 1)
        token = f"{self._connection}:{tag}".encode()
        self._leases[token] = lease
        self._set_timer(lease, token, reader.seconds)
        attempts = envelope.attempts + 1 if envelope is not None else 1
        reader.taker(Leased(reader.channel, envelope or message.body, token, attempts))

    def _consumer_is_gone(self, frame: spec.Basic.Cancel) -> None:
        """The broker has cancelled a consumer: its queue was deleted."""
        consumer = frame.consumer_tag or ""
        for reader in list(self._readers.values()):
            if consumer in reader.consumers and self._session is not None:
                reader.consumers.discard(consumer)
                reader.idle.discard(consumer)
                self._session.forget(reader.channel)
                self._adjust(reader)
