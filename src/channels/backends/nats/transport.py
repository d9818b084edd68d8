"""The transport over NATS: its supervisor, and the operations in NATS' words."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from channels.backends.nats.address import Address
from channels.backends.nats.connection import Broken, NatsConnection, connect
from channels.backends.nats.delays import Delays
from channels.backends.nats.jetstream import JetStream
from channels.backends.nats.leases import LeaseReaders
from channels.backends.nats.mail import Mail, PlainMail
from channels.backends.nats.members import QueueMembers
from channels.backends.nats.names import Names, QueuePlan
from channels.backends.nats.notes import Notes
from channels.backends.nats.options import NatsOptions
from channels.backends.nats.queues import QueueStreams
from channels.backends.nats.readers import Readers
from channels.backends.nats.window import WindowMail
from channels.backends.returning import Returner
from channels.exceptions import ChannelLayerUnavailable, MessageTooLarge, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Capabilities, Leased, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

_CLOSE_SECONDS: Final = 0.8
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


class NatsTransport:
    """Moves envelopes through NATS; see `channels.backends.nats`.

    Args:
        plan_of: How a channel that no process owns is kept.
        group_expiry: Seconds for which a membership stands.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        names: Names,
        options: NatsOptions,
        plan_of: Callable[[str], QueuePlan],
        group_expiry: Callable[[], float],
    ) -> None:
        self.capabilities = Capabilities(delays=True, queue_members=True)
        self._addresses = list(addresses)
        self._names = names
        self._options = options
        self._queues = QueueStreams(names, plan_of, options.queue_life)
        self._notes = Notes(names, options.max_notes)
        self._group_expiry = group_expiry
        self._counters: Counter[str] = Counter()
        self._scope = TaskScope("channel layer on NATS")
        self._connection: NatsConnection | None = None
        self._stream: JetStream | None = None
        self._events: TransportEvents
        self._mail: Mail
        self._members: QueueMembers
        self._readers: Readers
        self._leases: LeaseReaders
        self._delays: Delays
        self._returner: Returner
        self._is_up = asyncio.Event()
        self._is_stopping = False
        self._pause = _FIRST_PAUSE

    @property
    def clock_offset(self) -> float:
        """NATS tells no time, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._events = events
        self._scope = TaskScope("channel layer on NATS")
        spawn, counters = self._scope.spawn, self._counters
        self._members = QueueMembers(
            self._names,
            self._queues,
            self._group_expiry,
            self._options.max_queue_members,
            events.on_over_capacity,
        )
        self._mail = (
            WindowMail(self._names, node, self._options, spawn, events.on_frame, events.on_gap)
            if self._options.reliable
            else PlainMail(self._names, node, events.on_frame)
        )
        self._readers = Readers(self._queues, self._notes, lambda *_: None, spawn, counters)
        self._leases = LeaseReaders(self._queues, self._notes, spawn, counters)
        self._delays = Delays(self._names, self._queues, spawn, counters)
        self._is_up = asyncio.Event()
        self._returner = Returner(spawn, self._is_up, counters)
        self._is_stopping = False
        self._scope.spawn(self._run(), name="connection")

    async def stop(self) -> None:
        connection, self._is_stopping = self._connection, True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if connection is not None:
                    await self._readers.quiesce()
                    await self._leases.quiesce()
                    await self._delays.quiesce()
                    await self._returner.settle()
                    await connection.barrier()
        except (TimeoutError, Broken):
            self._counters["closed_rudely"] += 1
        # Before the tasks end: none of them is to start another.
        self._shut()
        await self._scope.close()

    def _shut(self) -> None:
        self._stream = None
        for part in (self._mail, self._readers, self._leases, self._delays):
            part.shut()

    def abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    async def _run(self) -> None:
        """Be connected, until cancelled; to one server of the cluster after the other."""
        turn = random.randrange(len(self._addresses))
        while not self._is_stopping:
            turn += 1
            try:
                await self._serve(self._addresses[turn % len(self._addresses)])
            except (Broken, OSError, ChannelLayerUnavailable) as error:
                logger.debug("No connection to NATS: %s", error)
                self._events.on_down(error)
            except Exception as error:
                logger.exception("The connection to NATS failed, and is made again")
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    async def _serve(self, address: Address) -> None:
        inbox = f"_INBOX.{secrets.token_hex(8)}"
        interval = self._options.ping_interval
        connection = await connect(address, interval, inbox, _CONNECT_SECONDS)
        self._connection = connection
        try:
            await self._open(connection)
            await asyncio.wait([connection.ended])
        finally:
            connection.fail(Broken("given up"))
            self._is_up.clear()
            self._connection = None
            self._shut()
        if not self._is_stopping:
            self._counters["disconnected"] += 1
            raise connection.ended.result()

    async def _open(self, connection: NatsConnection) -> None:
        options = self._options
        stream = JetStream(connection, options.persistent, options.replicas, self._scope.spawn)
        await self._open_members(stream)
        kept = await self._mail.open(stream)
        self._stream = stream
        self._readers.open(stream)
        self._leases.open(stream)
        self._delays.open(stream)
        self._pause = _FIRST_PAUSE
        self._is_up.set()
        self._events.on_up(kept)

    async def _open_members(self, stream: JetStream) -> None:
        try:
            await self._members.open(stream)
        except ChannelLayerUnavailable as error:
            if self._options.reliable:
                raise
            # Without JetStream there are groups of processes all the same.
            logger.debug("No queues in groups: %s", error)

    # The operations.

    def _require_stream(self, envelope: Envelope | None = None) -> JetStream:
        stream = self._stream
        if stream is None:
            raise TransportDown("NATS is not connected")
        most = stream.connection.max_payload
        if envelope is not None and len(envelope.encoded) > most:
            raise MessageTooLarge(
                f"A message of {len(envelope.encoded)} bytes is over the NATS server's "
                f"max_payload of {most}."
            )
        return stream

    async def flush(self) -> None:
        stream = self._require_stream()

        async def flush() -> None:
            for name in await stream.names(f"{self._names.prefix}.q.>"):
                await stream.purge(name)
            await stream.purge(self._delays.name)
            await self._notes.flush(stream)
            await self._members.flush(stream)
            await stream.connection.barrier()

        await _up(flush())

    async def join(self, groups: Sequence[str]) -> None:
        self._require_stream()
        await _up(self._mail.join(groups))

    async def leave(self, groups: Sequence[str]) -> None:
        self._require_stream()
        await _up(self._mail.leave(groups))

    async def publish(self, group: str, envelope: Envelope) -> None:
        stream = self._require_stream(envelope)
        await _up(self._mail.publish(group, envelope))
        # Only now is it sure that this process has heard of those that were added before.
        await _up(self._members.publish(stream, envelope))

    async def push_node(self, node: str, envelope: Envelope) -> None:
        self._require_stream(envelope)
        await _up(self._mail.push_node(node, envelope))

    async def push(
        self,
        queue: str,
        envelope: Envelope,
        capacity: int,  # noqa: ARG002 - in the queue's plan
    ) -> None:
        stream = self._require_stream(envelope)
        identity = f"{envelope.sender.hex()}.{envelope.seq}"
        await _up(self._queues.push(stream, queue, envelope.encoded, identity))

    async def _append_again(self, queue: str, envelope: Envelope, word: str) -> bool:
        stream = self._require_stream()
        await _up(self._queues.push(stream, queue, envelope.encoded, word, word))
        return True

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        await _up(self._members.add(self._require_stream(), group, queue, expires))

    async def discard_queue(self, group: str, queue: str) -> None:
        await _up(self._members.discard(self._require_stream(), group, queue))

    # Delays and leases.

    async def push_later(
        self,
        queue: str,  # noqa: ARG002 - the envelope names it
        envelope: Envelope,
        due: float,
        bound: int,
    ) -> None:
        stream = self._require_stream(envelope)
        await _up(self._delays.push_later(stream, envelope, due, bound))

    def demand(
        self, queue: str, count: int, seconds: float, taker: Callable[[Leased], None]
    ) -> None:
        self._leases.demand(queue, count, seconds, taker)

    # A token names the queue as well.

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await _up(self._leases.acknowledge(token))

    async def release(
        self,
        queue: str,  # noqa: ARG002
        token: bytes,
        delay: float,
        counted: bool,
    ) -> bool:
        return await _up(self._leases.release(token, delay, counted))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await _up(self._leases.extend(token, seconds))

    def statistics(self) -> Mapping[str, int]:
        return self._counters


async def _up(work: Awaitable[T]) -> T:
    """An operation's result; a broken connection in the contract's word."""
    try:
        return await work
    except Broken as error:
        raise TransportDown(str(error)) from error
