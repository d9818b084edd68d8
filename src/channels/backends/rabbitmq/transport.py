"""The transport over RabbitMQ: what the process's end asks for, in AMQP's words."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from aiormq.exceptions import DeliveryError, PublishError

from channels.backends.rabbitmq.address import RabbitMQAddress
from channels.backends.rabbitmq.connection import ERRORS, RabbitMQConnection, connect
from channels.backends.rabbitmq.inbox import RabbitMQInbox
from channels.backends.rabbitmq.leases import RabbitMQLeases
from channels.backends.rabbitmq.names import RabbitMQNames
from channels.backends.rabbitmq.options import RabbitMQOptions
from channels.backends.rabbitmq.session import RabbitMQSession
from channels.backends.shell import Backoff, Broken, Supervisor, run_until_one_fails
from channels.exceptions import ChannelFull, NodeGone, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Backlog, Capabilities, Leased, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

#: Seconds that a good-bye may take.
_CLOSE_SECONDS: Final = 0.8
#: One line for so many group sends that met a full inbox.
_LOG_EACH: Final = 1000


class RabbitMQTransport:
    """Moves envelopes through a broker; see `channels.backends.rabbitmq`."""

    def __init__(
        self, addresses: Sequence[RabbitMQAddress], names: RabbitMQNames, options: RabbitMQOptions
    ) -> None:
        self.capabilities = Capabilities()
        self._names = names
        self._options = options
        self._counters: Counter[str] = Counter()
        self._addresses = deque(addresses)
        self._connection: RabbitMQConnection | None = None
        self._backoff: Backoff
        self._events: TransportEvents
        self._inbox: RabbitMQInbox
        self._session: RabbitMQSession | None = None
        self._become_new()

    def _become_new(self) -> None:
        """Forget what was before."""
        self._scope = TaskScope("channel layer on RabbitMQ")
        self._leases = RabbitMQLeases(self._counters)

    @property
    def clock_offset(self) -> float:
        """AMQP has no clock, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._events = events
        self._become_new()
        self._inbox = RabbitMQInbox(node, events.on_frame)
        supervisor = Supervisor("RabbitMQ", self._serve, ERRORS, events.on_down)
        self._backoff = supervisor.backoff
        self._scope.spawn(supervisor.run(), name="connection")

    async def stop(self) -> None:
        session = self._session
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if session is not None:
                    await session.connection.carry_out(self._inbox.delete(session), is_call=True)
        except (TimeoutError, TransportDown):
            self._counters["closed_rudely"] += 1
        await self._scope.close()

    def abandon(self) -> None:
        connection, self._connection, self._session = self._connection, None, None
        if connection is not None:
            connection.abandon()

    async def _serve(self) -> None:
        """Be up until the connection breaks."""
        try:
            connection = await connect(
                self._addresses[0], self._options.heartbeat, self._inbox.node
            )
        except (Broken, OSError):
            self._addresses.rotate(-1)
            raise
        self._connection = connection
        self._backoff.made()
        session = RabbitMQSession(
            connection,
            self._names,
            self._events,
            persistent=self._options.persistent,
            refresh=self._options.queue_life / 2,
        )
        try:
            await run_until_one_fails(self._open(session), connection.until_ended())
        finally:
            if self._session is not None and connection.ended.done():
                self._counters["disconnected"] += 1
            self._session = None
            self._leases.shut()
            await connection.close()
            self._connection = None

    async def _open(self, session: RabbitMQSession) -> None:
        await session.open()
        kept = await self._inbox.open(session)
        self._session = session
        self._backoff.reset()
        self._leases.open(session)
        self._events.on_up(kept)

    # The operations.

    def _require_session(self) -> RabbitMQSession:
        if self._session is None or self._session.connection.ended.done():
            raise TransportDown("RabbitMQ is not connected")
        return self._session

    async def _call(self, make: Callable[[RabbitMQSession], Coroutine[Any, Any, T]]) -> T:
        """The result of something that waits for the broker's answer."""
        session = self._require_session()
        return await session.connection.carry_out(make(session), is_call=True)

    async def flush(self) -> None:
        await self._call(lambda session: session.flush())

    async def join(self, groups: Sequence[str]) -> None:
        await self._call(lambda session: session.bind(self._inbox.name, groups))

    async def leave(self, groups: Sequence[str]) -> None:
        await self._call(lambda session: session.unbind(self._inbox.name, groups))

    async def publish(self, group: str, envelope: Envelope) -> None:
        session = self._require_session()
        try:
            await session.connection.carry_out(session.publish(group, envelope))
        except DeliveryError:
            # RabbitMQ says that one inbox at least was full, not which and how many.
            if self._counters["group_sends_with_full_inbox"] % _LOG_EACH == 0:
                logger.warning("The inbox of a process with members of %s is full", group)
            self._counters["group_sends_with_full_inbox"] += 1

    async def push_node(self, node: str, envelope: Envelope) -> None:
        session, key = self._require_session(), self._names.key(node)
        try:
            await session.connection.carry_out(session.publish(key, envelope, mandatory=True))
        except PublishError:
            raise NodeGone(node) from None
        except DeliveryError:
            raise ChannelFull(
                f"The inbox of {node} holds its node_capacity of unread messages."
            ) from None

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        session = self._require_session()
        try:
            await session.connection.carry_out(session.push(queue, envelope))
        except DeliveryError:
            raise ChannelFull(
                f"{queue} holds its capacity of {capacity} unread messages."
            ) from None

    def demand(
        self, queue: str, count: int, seconds: float, taker: Callable[[Leased], None]
    ) -> None:
        self._leases.demand(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await self._call(lambda _: self._leases.acknowledge(token))

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        return await self._call(lambda _: self._leases.release(token, delay, counted))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return self._leases.extend(token, seconds)

    async def backlog(self, queue: str) -> Backlog:
        return Backlog(await self._call(lambda session: session.count(queue)))

    def statistics(self) -> Mapping[str, int]:
        return self._counters
