"""The transport over RabbitMQ: its supervisor, and the operations in AMQP's words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from channels.backends.rabbitmq.address import Address
from channels.backends.rabbitmq.channel import Broken, Properties
from channels.backends.rabbitmq.connection import AmqpConnection, connect
from channels.backends.rabbitmq.declarer import Declarer
from channels.backends.rabbitmq.delay_connection import DelayConnection
from channels.backends.rabbitmq.delays import Pump
from channels.backends.rabbitmq.desk import Desk
from channels.backends.rabbitmq.leases import Leases
from channels.backends.rabbitmq.names import Names, milliseconds
from channels.backends.rabbitmq.offers import Offers
from channels.backends.rabbitmq.options import RabbitMQOptions
from channels.backends.rabbitmq.overflow import Overflow
from channels.backends.rabbitmq.publisher import Fate, Publication
from channels.backends.rabbitmq.readers import Readers
from channels.backends.rabbitmq.session import DECLARING, FULL, LEASES, MOVED, QUEUES, Session
from channels.backends.rabbitmq.tickets import read_ticket
from channels.backends.returning import Returner
from channels.exceptions import ChannelFull, NodeGone, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Capabilities, Leased, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: Seconds that a good-bye may take.
_CLOSE_SECONDS: Final = 0.8
#: Seconds between attempts to connect: the first, and the longest.
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
_CONNECT_SECONDS: Final = 8.0
#: One line for so many group sends that met a full inbox.
_LOG_EACH: Final = 1000


class RabbitMQTransport:
    """Moves envelopes through a broker; see `channels.backends.rabbitmq`."""

    def __init__(
        self, addresses: Sequence[Address], names: Names, options: RabbitMQOptions
    ) -> None:
        self.capabilities = Capabilities(delays=True, queue_members=True)
        self._addresses = deque(addresses)
        self._names = names
        self._options = options
        self._counters: Counter[str] = Counter()
        self._scope = TaskScope("channel layer on RabbitMQ")
        self._is_stopping = False
        self._pause = _FIRST_PAUSE
        self._session: Session | None = None
        self._connection: AmqpConnection | None = None
        self._events: TransportEvents
        self._node = ""
        self._is_up = asyncio.Event()
        self._become_new()

    def _become_new(self) -> None:
        """Forget what was before."""
        names, spawn = self._names, self._scope.spawn
        self._desk = desk = Desk(names, self._node)
        self._is_up = asyncio.Event()
        self._returner = Returner(spawn, self._is_up, self._counters)
        self._offers = offers = Offers(
            names,
            desk,
            self._require_session,
            self._counters,
            persistent=self._options.persistent,
        )
        self._readers = Readers(
            self._declare,
            self._forget,
            spawn,
            hand=lambda: desk.hand,
            properties=self._properties_of_moved,
        )
        self._leases = Leases(
            self._declare_for_leases,
            self._forget,
            spawn,
            places=offers,
            restore=self._return,
            counters=self._counters,
        )
        pump = Pump(names, offers.waiting, offers.deliver, spawn, self._counters)
        self._delays = DelayConnection(pump, spawn)
        self._overflow = Overflow(
            names.full,
            self._count_members,
            self._on_over_capacity,
            spawn,
            self._counters,
        )

    @property
    def clock_offset(self) -> float:
        """AMQP has no clock, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._scope = TaskScope("channel layer on RabbitMQ")
        self._become_new()
        self._is_stopping = False
        self._scope.spawn(self._run(), name="connection")

    async def stop(self) -> None:
        session, self._is_stopping = self._session, True
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if session is not None:
                    await self._readers.quiesce()
                    await self._leases.quiesce()
                    await self._delays.quiesce()
                    await session.fence()
                    await self._returner.settle()
                    await session.close()
        except (TimeoutError, Broken, TransportDown):
            self._counters["closed_rudely"] += 1
        await self._scope.close()

    def abandon(self) -> None:
        connection, self._connection, self._session = self._connection, None, None
        if connection is not None:
            connection.abandon()
        self._delays.abandon()

    async def _run(self) -> None:
        """Be connected, until cancelled."""
        while not self._is_stopping:
            try:
                await self._serve()
            except (Broken, OSError) as error:
                logger.debug("No connection to RabbitMQ: %s", error)
                self._events.on_down(error)
            except Exception as error:
                logger.exception("The connection to RabbitMQ failed, and is made again")
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    async def _serve(self) -> None:
        """Connect, and be up until the connection breaks."""
        try:
            connection = await connect(
                self._addresses[0], self._options.heartbeat, _CONNECT_SECONDS
            )
        except (Broken, OSError):
            self._addresses.rotate(-1)
            raise
        self._connection = connection
        session = Session(
            connection, self._node, self._names, self._desk, self._events, self._on_moved
        )
        refreshing: asyncio.Task[None] | None = None
        try:
            kept = await session.open(self._make_declarer(connection))
            self._session = session
            self._readers.open(connection.channel(QUEUES))
            self._leases.open(connection.channel(LEASES))
            self._delays.open(self._addresses[0], session.declarer)
            self._overflow.open(connection.channel(FULL), session.declarer)
            self._is_up.set()
            self._pause = _FIRST_PAUSE
            self._events.on_up(kept)
            refreshing = self._scope.spawn(session.refresh_marker(), name="marker", on_done=_done)
            await asyncio.wait([connection.ended])
        finally:
            connection.fail(Broken("given up"))
            if refreshing is not None:
                refreshing.cancel()
            self._let_go_of(session)
        if not self._is_stopping:
            self._counters["disconnected"] += 1
            raise connection.ended.result()

    def _make_declarer(self, connection: AmqpConnection) -> Declarer:
        return Declarer(
            connection,
            DECLARING,
            self._names,
            self._events.capacity_of,
            self._options.queue_life / 2,
            self._scope.spawn,
        )

    def _let_go_of(self, session: Session) -> None:
        self._is_up.clear()
        self._session = self._connection = None
        for each in (self._readers, self._leases, self._delays, self._overflow):
            each.shut()
        publisher = getattr(session, "publisher", None)
        if publisher is not None:
            self._desk.note_unsure(publisher.shut())

    # The operations.

    def _require_session(self) -> Session:
        if self._session is None:
            raise TransportDown("RabbitMQ is not connected")
        return self._session

    async def flush(self) -> None:
        session = self._require_session()
        await session.up(session.declarer.flush())

    async def join(self, groups: Sequence[str]) -> None:
        session = self._require_session()
        await session.up(session.declarer.bind(self._desk.inbox, groups))

    async def leave(self, groups: Sequence[str]) -> None:
        session = self._require_session()
        await session.up(session.declarer.unbind(self._desk.inbox, groups))

    async def publish(self, group: str, envelope: Envelope) -> None:
        publication = Publication(
            self._names.groups, group, self._properties(envelope), envelope.encoded
        )
        fate = await self._require_session().publisher.publish(publication)
        if fate is Fate.REFUSED:
            # RabbitMQ says that one inbox at least was full, not which and how many.
            if self._counters["group_sends_with_full_inbox"] % _LOG_EACH == 0:
                logger.warning("The inbox of a process with members of %s is full", group)
            self._counters["group_sends_with_full_inbox"] += 1

    async def push_node(self, node: str, envelope: Envelope) -> None:
        publication = Publication(
            self._names.groups,
            self._names.key(node),
            self._properties(envelope),
            envelope.encoded,
            mandatory=True,
        )
        fate = await self._require_session().publisher.publish(publication)
        if fate is Fate.RETURNED:
            raise NodeGone(node)
        if fate is Fate.REFUSED:
            raise ChannelFull(f"The inbox of {node} holds its node_capacity of unread messages.")

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        if not await self._offers.offer(queue, envelope):
            raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        await self._offers.hold(queue, envelope, due, bound)

    def demand(
        self, queue: str, count: int, seconds: float, taker: Callable[[Leased], None]
    ) -> None:
        self._leases.demand_leased(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await self._require_session().up(self._leases.acknowledge(token))

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        return await self._require_session().up(self._leases.release(token, delay, counted))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return self._leases.extend(token, seconds)

    async def add_queue(self, group: str, queue: str, expires: float) -> None:  # noqa: ARG002
        # The membership's own queue counts the time, `group_expiry` from now.
        session = self._require_session()
        await session.up(session.declarer.add_member(group, queue))

    async def discard_queue(self, group: str, queue: str) -> None:
        session = self._require_session()
        await session.up(session.declarer.discard_member(group, queue))

    def statistics(self) -> Mapping[str, int]:
        return self._counters

    # Inside.

    def _on_moved(self, queue: str, data: bytes) -> None:  # noqa: ARG002
        self._readers.arrived(queue)

    def _on_over_capacity(self, group: str, full: int, members: int) -> None:
        self._events.on_over_capacity(group, full, members)

    async def _count_members(self, group: str) -> int:
        return await self._require_session().count_members(group)

    async def _declare(self, queue: str) -> Sequence[str]:
        if self._session is None:
            raise Broken("not connected")
        return await asyncio.shield(self._session.declarer.declare(queue))

    async def _declare_for_leases(self, queue: str) -> Sequence[str]:
        found = await self._declare(queue)
        if (session := self._session) is not None:
            # For those that are tried again later; what finds none of them is tried at once.
            with contextlib.suppress(Broken):
                await self._offers.waiting.declare_once(session.declarer)
        return found

    def _forget(self, queue: str) -> None:
        if self._session is not None:
            self._session.declarer.forget(queue)

    def _return(self, properties: Properties, body: bytes) -> None:
        """A message that was put back and found no queue."""
        ticket = read_ticket(properties)
        if ticket is not None:
            self._returner.insist(
                partial(self._offers.deliver, ticket, body), f"back to {ticket.channel}"
            )

    def _properties(self, envelope: Envelope) -> Properties:
        properties = Properties(delivery_mode=1)
        if envelope.deadline:
            left = envelope.deadline / 1000 - time.time()
            properties.expiration = str(milliseconds(left))
        return properties

    def _properties_of_moved(self, queue: str) -> Properties:
        return Properties(
            message_type=MOVED,
            message_id=str(next(self._desk.numbers)),
            reply_to=queue,
            delivery_mode=1,
        )


def _done(task: asyncio.Task[None]) -> None:
    """The marker's refresher ends with its connection."""
    if not task.cancelled():
        task.exception()
