"""The transport over NATS: its supervisor, and the operations in NATS' words."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from channels.exceptions import ChannelFull, MessageTooLarge, NodeGone, TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.envelope import Envelope
from channels.layers.nats.address import Address
from channels.layers.nats.connection import Broken, Message, NatsConnection, connect
from channels.layers.nats.jetstream import JetStream
from channels.layers.nats.names import Names
from channels.layers.nats.options import NatsOptions
from channels.layers.nats.readers import Readers
from channels.layers.transport import Capabilities, TransportEvents

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

_CLOSE_SECONDS: Final = 0.8
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
#: Seconds after which a message is offered again to a queue that is full.
_OFFER_AGAIN: Final = 0.05


class NatsTransport:
    """Moves envelopes through NATS; see `channels.layers.nats`."""

    def __init__(
        self,
        addresses: Sequence[Address],
        names: Names,
        options: NatsOptions,
        expiry: Callable[[], float],
    ) -> None:
        self.capabilities = Capabilities(queue_members=False, durable=options.persistent)
        self._addresses = list(addresses)
        self._names = names
        self._options = options
        self._expiry = expiry
        self._counters: Counter[str] = Counter()
        self._scope = TaskScope("channel layer on NATS")
        self._connection: NatsConnection | None = None
        self._stream: JetStream | None = None
        self._subscriptions: dict[str, int] = {}
        self._node = ""
        self._events: TransportEvents
        self._readers: Readers
        self._returning: set[asyncio.Task[None]] = set()
        self._is_up = asyncio.Event()
        self._is_stopping = False
        self._pause = _FIRST_PAUSE

    @property
    def clock_offset(self) -> float:
        """Zero: NATS tells no time, so deadlines are in the senders'."""
        return 0.0

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._scope = TaskScope("channel layer on NATS")
        self._readers = Readers(
            self._options.ack_wait,
            events.capacity_of,
            events.on_pulled,
            self._scope.spawn,
            self._counters,
        )
        self._returning = set()
        self._is_up = asyncio.Event()
        self._is_stopping = False
        self._scope.spawn(self._run(), name="connection")

    async def stop(self) -> None:
        connection, self._is_stopping = self._connection, True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if connection is not None:
                    await self._readers.quiesce()
                    while self._returning:
                        await asyncio.wait(self._returning)
                    await connection.barrier()
        except (TimeoutError, Broken):
            self._counters["closed_rudely"] += 1
        await self._scope.close()

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
            except (Broken, OSError) as error:
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
            connection.subscribe(self._names.node(self._node), self._take)
            await connection.barrier()
            spawn = self._scope.spawn
            self._stream = JetStream(connection, self._names, self._options, self._expiry, spawn)
            self._readers.open(self._stream)
            self._pause = _FIRST_PAUSE
            self._is_up.set()
            # What was sent meanwhile has gone by: NATS keeps nothing for those who are away.
            self._events.on_up(False)
            await asyncio.wait([connection.ended])
        finally:
            connection.fail(Broken("given up"))
            self._is_up.clear()
            self._subscriptions.clear()
            self._connection = self._stream = None
            self._readers.shut()
        if not self._is_stopping:
            self._counters["disconnected"] += 1
            raise connection.ended.result()

    def _take(self, message: Message) -> None:
        if not message.status:
            self._events.on_frame(message.data)

    # The operations.

    def _require_connection(self, envelope: Envelope | None = None) -> NatsConnection:
        connection = self._connection
        if connection is None or self._stream is None:
            raise TransportDown("NATS is not connected")
        if envelope is not None and len(envelope.encoded) > connection.max_payload:
            raise MessageTooLarge(
                f"A message of {len(envelope.encoded)} bytes is over the NATS server's "
                f"max_payload of {connection.max_payload}."
            )
        return connection

    def _require_stream(self) -> JetStream:
        if self._stream is None:
            raise TransportDown("NATS is not connected")
        return self._stream

    async def flush(self) -> None:
        await _up(self._require_stream().flush())

    async def join(self, groups: Sequence[str]) -> None:
        connection = self._require_connection()
        for group in groups:
            if group not in self._subscriptions:
                subject = self._names.group(group)
                self._subscriptions[group] = connection.subscribe(subject, self._take)
        await _up(connection.barrier())

    async def leave(self, groups: Sequence[str]) -> None:
        connection = self._require_connection()
        for group in groups:
            if (number := self._subscriptions.pop(group, None)) is not None:
                connection.unsubscribe(number)
        await _up(connection.barrier())

    async def publish(self, group: str, envelope: Envelope) -> None:
        connection = self._require_connection(envelope)
        connection.publish(self._names.group(group), envelope.encoded)
        await _up(connection.barrier())

    async def push_node(self, node: str, envelope: Envelope) -> None:
        connection = self._require_connection(envelope)
        answer = connection.request(self._names.node(node), envelope.encoded)
        try:
            await _up(connection.barrier())
            # The node does not answer; the server does, before the barrier, if there is none.
            if answer.done():
                raise NodeGone(node)
        finally:
            answer.cancel()

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        self._require_connection(envelope)
        identity = f"{envelope.sender.hex()}.{envelope.seq}"
        stream = self._require_stream()
        await _up(stream.push(queue, envelope.encoded, identity, capacity))

    def demand(self, queue: str, count: int) -> None:
        self._readers.demand(queue, count)

    def give_back(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            task = self._scope.spawn(self._give_back(queue, envelope), name=f"back to {queue}")
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _give_back(self, queue: str, envelope: Envelope) -> None:
        """Append it again, under a name of its own: it has been acknowledged."""
        identity = f"back.{secrets.token_hex(8)}"
        while not envelope.is_expired(time.time()):
            capacity = self._events.capacity_of(queue)
            try:
                stream = self._require_stream()
                await _up(stream.push(queue, envelope.encoded, identity, capacity))
            except ChannelFull:
                await asyncio.sleep(_OFFER_AGAIN)
            except TransportDown:
                await self._is_up.wait()
            else:
                self._counters["given_back"] += 1
                return
        self._counters["dropped_expired_returned"] += 1

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        raise NotImplementedError(
            f"{queue} belongs to no process and cannot be a member of {group}: groups of the NATS "
            f"layer take channels made by new_channel()."
        )

    async def discard_queue(self, group: str, queue: str) -> None:
        """It cannot be a member."""

    def statistics(self) -> Mapping[str, int]:
        return self._counters


async def _up(work: Awaitable[T]) -> T:
    """An operation's result; a broken connection in the contract's word."""
    try:
        return await work
    except Broken as error:
        raise TransportDown(str(error)) from error
