"""Channels that no process owns, on JetStream: sent to streams, and read on lease.

A stream holds the channels of one kind and refuses the message that is one over a channel's
capacity.  Each channel has a pull consumer that all its readers share.
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
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from channels.backends.nats.connection import NatsConnection
from channels.backends.nats.leases import NatsLeases
from channels.backends.nats.names import NatsNames, QueuePlan
from channels.backends.nats.options import NatsOptions
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

Taker = Callable[[Leased], None]

#: Error codes of JetStream: the name of a stream, or of a consumer, is taken by another make.
_NAME_IN_USE: Final = frozenset({10058, 10013, 10148})
#: What it says when a channel holds its capacity; the code is that of every message not stored.
_FULL: Final = "per subject"
#: Statuses of a question: its consumer was deleted, nobody hears the question.
_GONE: Final = frozenset({"409", "503"})
#: How long a question for messages stands.
_PULL_SECONDS: Final = 5.0
#: ... and how much longer the word that it has ended may take.
_SILENCE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 0.4
_NANO: Final = 1_000_000_000


class _Reader:
    """A channel that is read here."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.wanted = 0
        self.seconds = 0.0
        self.taker: Taker
        #: Messages that the server was asked for and has not sent.
        self.asked = 0
        self.is_asking = False
        #: On the present connection: whether the consumer is there, and where answers come.
        self.has_consumer = False
        self.inbox: Subscription | None = None
        self.check: asyncio.TimerHandle | None = None


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
        self._scope = TaskScope("queues on NATS")
        self._connection: NatsConnection | None = None
        self._streams: set[str] = set()
        self._readers: dict[str, _Reader] = {}

    def open(self, connection: NatsConnection) -> None:
        """Go on over a new connection."""
        self._connection = self.leases.connection = connection
        self._streams.clear()
        for reader in self._readers.values():
            reader.has_consumer, reader.inbox, reader.asked = False, None, 0
            self._ask(reader)

    def shut(self) -> None:
        """The connection is no more; what is on lease runs on."""
        self._connection = self.leases.connection = None

    async def stop(self) -> None:
        """Take nothing more."""
        for reader in self._readers.values():
            reader.wanted = 0
            self._take_back(reader)
            if reader.check is not None:
                reader.check.cancel()
        self.leases.forget()
        # What came too late is put back, before the connection ends.
        await self._scope.join(_STOP_SECONDS)
        await self._scope.close()

    def forget(self) -> None:
        """The loop is another, or the process."""
        self._readers.clear()
        self.leases.forget()
        self._streams.clear()
        self._scope = TaskScope("queues on NATS")
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

    # Reading.

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        reader = self._readers.get(queue)
        if reader is None:
            if count <= 0:
                return
            reader = self._readers[queue] = _Reader(queue)
        reader.wanted, reader.seconds, reader.taker = max(0, count), seconds, taker
        if reader.wanted < reader.asked:
            self._take_back(reader)
        self._ask(reader)

    def _take_back(self, reader: _Reader) -> None:
        """Ask for nothing: JetStream forgets a question when nobody hears its answers any more.

        What is given back would come here again otherwise, and each time count as an attempt.
        """
        reader.asked = 0
        if (inbox := reader.inbox) is not None:
            reader.inbox = None
            self._scope.spawn(_drain(inbox), name=f"inbox of {reader.queue}")

    def _ask(self, reader: _Reader) -> None:
        """Ask for as many as are wanted.  Those that are asked for too many come and go back."""
        if reader.wanted > reader.asked and not reader.is_asking and self._connection is not None:
            reader.is_asking = True
            self._scope.spawn(self._pull(reader, self._connection), name=f"pull {reader.queue}")

    async def _pull(self, reader: _Reader, connection: NatsConnection) -> None:
        try:
            while self._connection is connection and reader.wanted > reader.asked:
                if not reader.has_consumer:
                    await self._make_consumer(connection, reader)
                if reader.inbox is None:
                    take = partial(self._on_message, reader, connection)
                    reader.inbox = await connection.subscribe(connection.client.new_inbox(), take)
                count = reader.wanted - reader.asked
                if count <= 0 or not reader.has_consumer:
                    continue
                reader.asked += count
                body = json.dumps({"batch": count, "expires": int(_PULL_SECONDS * _NANO)})
                plan = self._plan_of(reader.queue)
                place = f"{self._names.stream(plan)}.{self._names.consumer(reader.queue)}"
                await connection.publish(
                    f"$JS.API.CONSUMER.MSG.NEXT.{place}", body.encode(), reader.inbox.subject
                )
                self._check_later(reader)
        except (TransportDown, NatsError, OSError):
            # The next connection asks again.
            reader.has_consumer = False
        except ChannelLayerUnavailable as error:
            logger.warning("%s cannot be read: %s", reader.queue, error)
            reader.has_consumer = False
            asyncio.get_running_loop().call_later(1.0, self._ask, reader)
        finally:
            reader.is_asking = False

    async def _make_consumer(self, connection: NatsConnection, reader: _Reader) -> None:
        plan = self._plan_of(reader.queue)
        await self._make_stream(connection, plan)
        config = ConsumerConfig(
            durable_name=self._names.consumer(reader.queue),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=plan.ack_wait,
            filter_subject=self._names.queue(plan, reader.queue),
            max_deliver=-1,
            max_ack_pending=-1,
            inactive_threshold=self._options.queue_life,
        )
        stream = self._names.stream(plan)
        await self._manage(connection, connection.js.add_consumer(stream, config))
        reader.has_consumer = True

    def _check_later(self, reader: _Reader) -> None:
        if reader.check is not None:
            reader.check.cancel()
        loop = asyncio.get_running_loop()
        reader.check = loop.call_later(_PULL_SECONDS + _SILENCE_SECONDS, self._on_silence, reader)

    def _on_silence(self, reader: _Reader) -> None:
        """A question that reaches a consumer in the moment of its deletion is never answered."""
        if reader.asked:
            self._begin_anew(reader)

    def _begin_anew(self, reader: _Reader) -> None:
        """Look again whether stream and consumer are there, and ask."""
        self._streams.discard(self._names.stream(self._plan_of(reader.queue)))
        reader.has_consumer, reader.asked = False, 0
        self._ask(reader)

    def _on_message(self, reader: _Reader, connection: NatsConnection, message: Msg) -> None:
        if self._connection is not connection:
            return
        status = (message.headers or {}).get("Status", "")
        if status:
            self._on_status(reader, status, message.headers or {})
            return
        reader.asked = max(0, reader.asked - 1)
        if reader.wanted <= 0:
            # Its reader has gone.
            self.leases.say(message.reply, b"-NAK")
            return
        reader.wanted -= 1
        ack_wait = self._plan_of(reader.queue).ack_wait
        token, attempts = self.leases.add(message, reader.seconds, ack_wait)
        reader.taker(Leased(reader.queue, message.data, token, attempts))

    def _on_status(self, reader: _Reader, status: str, headers: dict[str, str]) -> None:
        """A question has ended: nothing came in time, or the consumer has gone."""
        if status == "100":
            return
        left = headers.get("Nats-Pending-Messages", "")
        reader.asked = max(0, reader.asked - int(left)) if left.isdigit() else 0
        if status in _GONE:
            self._begin_anew(reader)
        else:
            self._ask(reader)


async def _drain(inbox: Subscription) -> None:
    """Hear no more than what is on its way."""
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await inbox.drain()  # type: ignore[no-untyped-call]
