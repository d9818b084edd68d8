"""Channels that no process owns, on JetStream: sent to streams, and read on lease.

A stream holds the channels of one kind and refuses the message that is one over a channel's
capacity.  Each channel has a pull consumer that all its readers share.  A process asks it for one
message at a time, and nats-py's `fetch` does not: cancelled, it loses what is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

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

from channels.backends.nats.connection import NatsConnection
from channels.backends.nats.leases import NatsLeases
from channels.backends.nats.names import NatsNames, QueuePlan
from channels.backends.nats.options import NatsOptions
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, TransportDown
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

Taker = Callable[[Leased], None]

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


class _Reader:
    """A channel that is read here."""

    taker: Taker

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.wanted = 0
        self.seconds = 0.0
        #: Asks on the present connection, as long as something is wanted; where answers come.
        self.asking: asyncio.Task[None] | None = None
        self.inbox: Subscription | None = None
        #: The end of the question that stands: whether a message came.
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class NatsQueues:
    """The queues of a process.

    Args:
        plan_of: How a channel is kept.
    """

    def __init__(
        self,
        names: NatsNames,
        options: NatsOptions,
        plan_of: Callable[[str], QueuePlan],
        counters: Counter[str],
    ) -> None:
        self._names = names
        self._options = options
        self._plan_of = plan_of
        self.leases = NatsLeases(counters)
        self._connection: NatsConnection | None = None
        self._streams: set[str] = set()
        self._readers: dict[str, _Reader] = {}

    def open(self, connection: NatsConnection) -> None:
        """Go on over a new connection."""
        self._connection = self.leases.connection = connection
        self._streams.clear()
        for reader in self._readers.values():
            reader.asking = reader.inbox = None
            self._ask(reader)

    def shut(self) -> None:
        """The connection is no more; what is on lease runs on."""
        self._connection = self.leases.connection = None

    async def stop(self) -> None:
        """Take nothing more; what is on its way goes back."""
        inboxes = []
        for reader in self._readers.values():
            reader.wanted = 0
            if reader.inbox is not None:
                inboxes.append(reader.inbox)
        self.leases.forget()
        if self._connection is not None:
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                await asyncio.gather(*[inbox.drain() for inbox in inboxes])  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """The loop is another, or the process."""
        self._readers.clear()
        self.leases.forget()
        self._streams.clear()
        self.shut()

    # Sending.

    async def push(self, connection: NatsConnection, queue: str, envelope: Envelope) -> None:
        """Append a message.

        Raises:
            ChannelFull: If the channel holds its capacity.
            ChannelLayerUnavailable: If the server has no JetStream.
        """
        plan = self._plan_of(queue)
        subject = self._names.queue(plan, queue)
        # By this JetStream drops what it is sent twice, after a broken connection.
        headers = {"Nats-Msg-Id": f"{envelope.sender.hex()}.{envelope.seq}"}
        for may_be_gone in (True, False):
            await self._make_stream(connection, plan)
            try:
                await connection.carry_out(
                    connection.js.publish(subject, envelope.encoded, headers=headers)
                )
            except NoStreamResponseError:
                # Somebody has deleted it.
                self._streams.discard(self._names.stream(plan))
                if not may_be_gone:
                    raise ChannelLayerUnavailable("The stream of this channel is gone.") from None
            except APIError as error:
                if _FULL not in (error.description or ""):
                    raise ChannelLayerUnavailable(f"JetStream: {error.description}") from None
                raise ChannelFull(f"{queue} holds its capacity of unread messages.") from None
            else:
                return

    async def _make_stream(self, connection: NatsConnection, plan: QueuePlan) -> None:
        name, options = self._names.stream(plan), self._options
        if name in self._streams:
            return
        config = StreamConfig(
            name=name,
            subjects=[self._names.stream_subjects(plan)],
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
            await self._manage(connection, connection.js.add_stream(config))
        except ChannelLayerUnavailable:
            # Another process that makes the same one has its subjects for a moment.
            with contextlib.suppress(APIError, NatsError):
                await connection.carry_out(connection.js.stream_info(name))
                self._streams.add(name)
            if name not in self._streams:
                raise
        self._streams.add(name)

    async def _manage(self, connection: NatsConnection, work: Any) -> None:
        try:
            await connection.carry_out(work)
        except (ServiceUnavailableError, NoRespondersError) as error:
            raise ChannelLayerUnavailable(
                "Channels that no process owns need JetStream, which this NATS server does not "
                f"offer: {error}"
            ) from None
        except APIError as error:
            # Of another make, it is used as it is.
            if error.err_code not in _NAME_IN_USE:
                raise ChannelLayerUnavailable(f"JetStream: {error.description}") from None

    async def flush(self, connection: NatsConnection) -> None:
        """Forget all messages of all channels."""
        try:
            streams = await connection.carry_out(connection.js.streams_info())
            for stream in streams:
                if (stream.config.name or "").startswith(self._names.stream_prefix):
                    await connection.carry_out(connection.js.purge_stream(stream.config.name or ""))
        except (ServiceUnavailableError, NoRespondersError, APIError) as error:
            logger.debug("No queues to flush: %s", error)

    async def count(self, connection: NatsConnection, queue: str) -> int:
        """How many messages of a channel are on no lease."""
        plan = self._plan_of(queue)
        stream, subject = self._names.stream(plan), self._names.queue(plan, queue)
        try:
            there = await connection.carry_out(connection.js.stream_info(stream, subject))
            count = (there.state.subjects or {}).get(subject, 0)
            with contextlib.suppress(NotFoundError):
                consumer = connection.js.consumer_info(stream, self._names.consumer(queue))
                count -= (await connection.carry_out(consumer)).num_ack_pending or 0
        except NotFoundError:
            return 0
        except (ServiceUnavailableError, NoRespondersError, APIError) as error:
            raise ChannelLayerUnavailable(f"JetStream: {error}") from None
        return max(0, count)

    # Reading.

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        reader = self._readers.get(queue)
        if reader is None:
            if count <= 0:
                return
            reader = self._readers[queue] = _Reader(queue)
        reader.wanted, reader.seconds, reader.taker = max(0, count), seconds, taker
        self._ask(reader)

    def _ask(self, reader: _Reader) -> None:
        connection = self._connection
        if reader.wanted and reader.asking is None and connection is not None:
            reader.asking = connection.spawn(self._ask_until_served(reader, connection))

    async def _ask_until_served(self, reader: _Reader, connection: NatsConnection) -> None:
        try:
            while reader.wanted:
                try:
                    await self._make_consumer(connection, reader.queue)
                    while reader.wanted:
                        await self._ask_once(reader, connection)
                except TimeoutError:
                    # Nothing came, or the consumer was deleted: it is made, if it is not there.
                    self._streams.discard(self._names.stream(self._plan_of(reader.queue)))
                except ChannelLayerUnavailable as error:
                    logger.warning("%s cannot be read: %s", reader.queue, error)
                    await asyncio.sleep(_RETRY_SECONDS)
        except (TransportDown, NatsError, OSError) as error:
            connection.fail(error)
        finally:
            if self._connection is connection:
                reader.asking = None

    async def _ask_once(self, reader: _Reader, connection: NatsConnection) -> None:
        """Ask for a message, which `_on_message` takes; raises TimeoutError if none came."""
        if reader.inbox is None:
            take = partial(self._on_message, reader)
            reader.inbox = await connection.subscribe(connection.client.new_inbox(), take)
        stream = self._names.stream(self._plan_of(reader.queue))
        body = json.dumps({"batch": 1, "expires": int(_PULL_SECONDS * _NANO)})
        answered = reader.answered = asyncio.get_running_loop().create_future()
        await connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._names.consumer(reader.queue)}",
            body.encode(),
            reader.inbox.subject,
        )
        async with asyncio.timeout(_PULL_SECONDS + _ANSWER_SECONDS):
            if not await answered:
                raise TimeoutError

    async def _make_consumer(self, connection: NatsConnection, queue: str) -> None:
        plan = self._plan_of(queue)
        await self._make_stream(connection, plan)
        config = ConsumerConfig(
            durable_name=self._names.consumer(queue),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=plan.ack_wait,
            filter_subject=self._names.queue(plan, queue),
            max_deliver=-1,
            max_ack_pending=-1,
            inactive_threshold=self._options.queue_life,
        )
        stream = self._names.stream(plan)
        await self._manage(connection, connection.js.add_consumer(stream, config))

    def _on_message(self, reader: _Reader, message: Msg) -> None:
        """A message, or the word that a question has ended without one."""
        is_message = not (message.headers or {}).get("Status")
        if not reader.answered.done():
            reader.answered.set_result(is_message)
        if not is_message:
            return
        if reader.wanted <= 0:
            # Its reader has gone.
            self.leases.say(message.reply, b"-NAK")
            return
        reader.wanted -= 1
        ack_wait = self._plan_of(reader.queue).ack_wait
        token, attempts = self.leases.add(message, reader.seconds, ack_wait)
        reader.taker(Leased(reader.queue, message.data, token, attempts))
