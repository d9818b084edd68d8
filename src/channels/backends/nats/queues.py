"""Channels that no process owns, on JetStream: sent to streams, and read on lease.

A stream holds the channels of one kind and refuses the message that is one over a channel's
capacity.  Each channel has a pull consumer that all its readers share.  A process asks it for one
message at a time, and nats-py's `fetch` does not: cancelled, it loses what is on its way.

A message that was taken is another's after `ack_wait` unless its process says that it goes on with
it, which this does until the lease is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from channels.backends.driver import ReadDemand
from channels.backends.lease_table import LeaseTable
from channels.backends.nats.connection import ANSWER_SECONDS, NatsConnection
from channels.backends.nats.names import NatsNames, encode
from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: Error codes of JetStream: the name of a stream, or of a consumer, is taken by another make.
_NAME_IN_USE: Final = frozenset({10058, 10013, 10148})
#: What it says when a channel holds its capacity; the code is that of every message not stored.
_FULL: Final = "per subject"
#: How long a question for a message stands, and how much longer its answer may take.
_PULL_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 1.0
#: Seconds until the next attempt where JetStream is not as it should be.
_RETRY_SECONDS: Final = 1.0
_NANO: Final = 1_000_000_000


class NatsDelivery(NamedTuple):
    """A message on lease: the subject that ends it, and how long JetStream waits, in seconds."""

    reply: str
    ack_wait: float


class _PulledQueue:
    """A channel that is read over this connection."""

    #: The end of the question that stands: whether a message came.
    answered: asyncio.Future[bool]

    def __init__(self, demand: ReadDemand) -> None:
        self.demand = demand
        self.asking: asyncio.Task[None] | None = None


class NatsQueues:
    """The queues as one connection sends to them and reads them.

    Args:
        table: The leases of this process, which outlive its connections.
    """

    def __init__(
        self, connection: NatsConnection, names: NatsNames, table: LeaseTable[NatsDelivery]
    ) -> None:
        self._connection = connection
        self._names = names
        self._table = table
        #: Streams that were there a moment ago.
        self._streams: set[str] = set()
        #: By the last word of the queue's subject.
        self._readers: dict[str, _PulledQueue] = {}
        #: Answers come to subjects below it that end in that word, and so do messages' own.
        self._inbox = connection.client.new_inbox()
        self._subscription: Subscription

    async def open(self) -> None:
        """Hear the answers to questions for messages."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)

    async def close(self) -> None:
        """Take nothing more; what is on its way goes back."""
        for reader in self._readers.values():
            reader.demand.count = 0
        await self._subscription.drain()  # type: ignore[no-untyped-call]

    def shut(self) -> None:
        """What is on lease runs on."""

    # Sending.

    async def push(self, queue: str, envelope: Envelope) -> None:
        """Append a message.

        Raises:
            ChannelFull: If the channel holds its capacity.
            ChannelLayerUnavailable: If the server has no JetStream.
        """
        # By this JetStream drops what it is sent twice, after a broken connection.
        headers = {"Nats-Msg-Id": f"{envelope.sender.hex()}.{envelope.seq}"}
        subject = self._names.queue(queue)
        for may_be_gone in (True, False):
            stream = await self._make_stream(queue)
            try:
                await self._connection.js.publish(subject, envelope.encoded, headers=headers)
            except NoStreamResponseError:
                # Somebody has deleted it.
                self._streams.discard(stream)
                if not may_be_gone:
                    raise ChannelLayerUnavailable("The stream of this channel is gone.") from None
            except APIError as error:
                if _FULL not in (error.description or ""):
                    raise ChannelLayerUnavailable(f"JetStream: {error.description}") from None
                raise ChannelFull(f"{queue} holds its capacity of unread messages.") from None
            else:
                return

    async def _make_stream(self, queue: str) -> str:
        plan, options, js = self._names.plan_of(queue), self._names.options, self._connection.js
        name = self._names.stream(queue)
        if name in self._streams:
            return name
        config = StreamConfig(
            name=name,
            subjects=[self._names.stream_subjects(queue)],
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=plan.capacity,
            max_age=plan.life or 0,
            storage=StorageType.FILE if options.persistent else StorageType.MEMORY,
            num_replicas=options.replicas,
            duplicate_window=min(120.0, plan.life or 120.0),
        )
        try:
            await self._make(js.add_stream(config))
        except ChannelLayerUnavailable:
            # Another process that makes the same one has its subjects for a moment.
            with contextlib.suppress(APIError):
                await js.stream_info(name)
                self._streams.add(name)
            if name not in self._streams:
                raise
        self._streams.add(name)
        return name

    async def _make(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (ServiceUnavailableError, NoRespondersError) as error:
            raise ChannelLayerUnavailable(
                "Channels that no process owns need JetStream, which this NATS server does not "
                f"offer: {error}"
            ) from None
        except APIError as error:
            # Of another make, it is used as it is.
            if error.err_code not in _NAME_IN_USE:
                raise ChannelLayerUnavailable(f"JetStream: {error.description}") from None

    async def flush(self) -> None:
        """Forget all messages of all channels."""
        js = self._connection.js
        try:
            for stream in await js.streams_info():
                name = stream.config.name or ""
                if name.startswith(self._names.stream_prefix):
                    await js.purge_stream(name)
        except (ServiceUnavailableError, NoRespondersError, APIError) as error:
            logger.debug("No queues to flush: %s", error)

    async def count(self, queue: str) -> int:
        """How many messages of a channel are on no lease."""
        stream, subject = self._names.stream(queue), self._names.queue(queue)
        js = self._connection.js
        try:
            there = await js.stream_info(stream, subject)
            count = (there.state.subjects or {}).get(subject, 0)
            with contextlib.suppress(NotFoundError):
                consumer = await js.consumer_info(stream, self._names.consumer(queue))
                count -= consumer.num_ack_pending or 0
        except NotFoundError:
            return 0
        except (ServiceUnavailableError, NoRespondersError, APIError) as error:
            raise ChannelLayerUnavailable(f"JetStream: {error}") from None
        return max(0, count)

    # Reading.

    def serve(self, demand: ReadDemand) -> None:
        reader = self._readers.setdefault(encode(demand.queue), _PulledQueue(demand))
        reader.demand = demand
        if demand.count and reader.asking is None:
            reader.asking = self._connection.spawn(self._ask_until_served(reader))

    async def _ask_until_served(self, reader: _PulledQueue) -> None:
        queue = reader.demand.queue
        try:
            while reader.demand.count:
                try:
                    await self._make_consumer(queue)
                    while reader.demand.count:
                        await self._ask_once(reader)
                except TimeoutError:
                    # Nothing came, or the consumer was deleted: it is made, if it is not there.
                    self._streams.discard(self._names.stream(queue))
                except ChannelLayerUnavailable as error:
                    logger.warning("%s cannot be read: %s", queue, error)
                    await asyncio.sleep(_RETRY_SECONDS)
        except (NatsError, OSError) as error:
            self._connection.fail(error)
        finally:
            reader.asking = None

    async def _ask_once(self, reader: _PulledQueue) -> None:
        """Ask for a message, which `_on_message` takes; raises TimeoutError if none came."""
        queue = reader.demand.queue
        stream, consumer = self._names.stream(queue), self._names.consumer(queue)
        body = json.dumps({"batch": 1, "expires": int(_PULL_SECONDS * _NANO)})
        answered = reader.answered = asyncio.get_running_loop().create_future()
        await self._connection.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
            body.encode(),
            f"{self._inbox}.{encode(queue)}",
        )
        async with asyncio.timeout(_PULL_SECONDS + _ANSWER_SECONDS):
            if not await answered:
                raise TimeoutError

    async def _make_consumer(self, queue: str) -> None:
        stream = await self._make_stream(queue)
        config = ConsumerConfig(
            durable_name=self._names.consumer(queue),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._names.plan_of(queue).ack_wait,
            filter_subject=self._names.queue(queue),
            max_deliver=-1,
            max_ack_pending=-1,
            inactive_threshold=self._names.options.queue_life,
        )
        await self._make(self._connection.js.add_consumer(stream, config))

    def _on_message(self, message: Msg) -> None:
        """A message, or the word that a question has ended without one."""
        reader = self._readers.get(message.subject.rpartition(".")[2])
        is_message = not (message.headers or {}).get("Status")
        if reader is not None and not reader.answered.done():
            reader.answered.set_result(is_message)
        if reader is None or not is_message:
            return
        if not reader.demand.count:
            # Its reader has gone.
            self.say(message.reply, b"-NAK")
            return
        delivery = NatsDelivery(message.reply, self._names.plan_of(reader.demand.queue).ack_wait)
        token = self._table.add(delivery, reader.demand.seconds, delivery.ack_wait / 2)
        reader.demand.take(message.data, token, message.metadata.num_delivered or 1)

    # Leases.

    def say(self, reply: str, word: bytes) -> None:
        """Say something of a delivery; lost, the message is another's after `ack_wait`."""
        self._connection.spawn(self._connection.client.publish(reply, word))

    async def acknowledge(self, token: bytes) -> bool:
        return await self._end(token, b"+ACK")

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        """As `WorkQueue.release`; it was an attempt, for JetStream counts deliveries."""
        word = b'-NAK {"delay": %d}' % int(delay * _NANO) if delay > 0 else b"-NAK"
        return await self._end(token, word)

    async def extend(self, token: bytes, seconds: float) -> bool:
        return await self._confirm(token, b"+WPI") and self._table.extend(token, seconds)

    async def _end(self, token: bytes, word: bytes) -> bool:
        return await self._confirm(token, word) and self._table.end(token) is not None

    async def _confirm(self, token: bytes, word: bytes) -> bool:
        """Say something of a lease and hear that it was heard; False if it is known no more."""
        if (delivery := self._table.find(token)) is None:
            return False
        try:
            await self._connection.client.request(delivery.reply, word, timeout=ANSWER_SECONDS)
        except NoRespondersError:
            return False
        return True
