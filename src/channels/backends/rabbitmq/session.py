"""A process's use of one connection: publishing, and what the broker must have.

AMQP channels: one to publish with confirms, one for queues on lease, one for declarations, which
RabbitMQ answers by closing the channel when it refuses one; and the inbox has its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiormq import Channel, spec
from aiormq.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    PublishError,
)

from channels.backends.rabbitmq.connection import RabbitMQConnection
from channels.backends.rabbitmq.names import RabbitMQNames, milliseconds
from channels.layers.contract import TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

#: Seconds between looks at a queue whose node of the cluster is down.
_AWAY_SECONDS: Final = 0.5
#: Seconds that a publish waits for the broker before that is told.
_BLOCKED_SECONDS: Final = 0.1
#: Queues that one process remembers to have declared.
_MOST_DECLARED: Final = 10_000
_LONGEST_NAME: Final = 255


class QueueAway(Exception):
    """The node of the cluster that has the queue is down."""


class RabbitMQSession:
    """One connection in use.

    Args:
        persistent: Whether messages in queues are written to disk.
        refresh: Seconds after which a queue in use is declared again, so that it lives on.
    """

    def __init__(
        self,
        connection: RabbitMQConnection,
        names: RabbitMQNames,
        events: TransportEvents,
        *,
        persistent: bool,
        refresh: float,
    ) -> None:
        self.connection = connection
        self.names = names
        self.leases: Channel
        self._events = events
        self._delivery_mode = 2 if persistent else 1
        self._refresh = refresh
        self._publishing: Channel
        self._admin: Channel | None = None
        self._admin_lock = asyncio.Lock()
        #: First in, first out: what is published behind a declaration does not overtake it.
        self._gate = asyncio.Lock()
        self._blocked: asyncio.Task[None] | None = None
        #: Channel -> when its queue was declared.
        self._declared: dict[str, float] = {}
        self._differing: set[str] = set()

    # Life.

    async def open(self) -> None:
        """Make the channels, and what all processes share.

        Raises:
            AMQPError: If something is refused that must not be, or the connection breaks.
        """
        names = self.names
        self._publishing = self.depend_on(await self.open_channel(confirms=True))
        self.leases = self.depend_on(await self.open_channel())
        await self.leases.basic_qos(prefetch_count=1)
        await self.administer(
            lambda admin: admin.exchange_declare(names.groups, exchange_type="direct", durable=True)
        )
        try:
            await self.declare_queue(names.names, names.names_arguments())
        except ChannelNotFoundEntity as error:
            # Without it `flush` forgets less.
            logger.warning("RabbitMQ: %s", error)

    async def open_channel(self, confirms: bool = False) -> Channel:
        channel = await self.connection.amqp.channel(publisher_confirms=confirms)
        assert isinstance(channel, Channel), "aiormq makes no others"
        return channel

    def depend_on(self, channel: Channel) -> Channel:
        """Without this channel the connection is of no use."""

        def closed(closing: asyncio.Future[Any]) -> None:
            error = None if closing.cancelled() else closing.exception()
            self.connection.fail(f"a channel was closed: {error}")

        channel.closing.add_done_callback(closed)
        return channel

    # Declarations.

    async def administer(self, call: Callable[[Channel], Awaitable[T]]) -> T:
        """Something that the broker may refuse by closing the channel."""
        async with self._admin_lock:
            if self._admin is None or self._admin.is_closed:
                self._admin = await self.open_channel()
            return await call(self._admin)

    async def bind(self, inbox: str, keys: Sequence[str]) -> None:
        """Have what is published with these routing keys come to an inbox."""

        async def bind(admin: Channel) -> None:
            for key in keys[:-1]:
                await admin.queue_bind(inbox, self.names.groups, key, nowait=True)
            # Its answer says that all are bound.
            await admin.queue_bind(inbox, self.names.groups, keys[-1])

        await self.administer(bind)

    async def unbind(self, inbox: str, keys: Sequence[str]) -> None:
        async def unbind(admin: Channel) -> None:
            for key in keys:
                await admin.queue_unbind(inbox, self.names.groups, key)

        await self.administer(unbind)

    async def declare(self, channel: str, max_age: float | None = None) -> str:
        """The queue of a channel, which exists then.

        Args:
            max_age: Seconds for which an earlier declaration counts; None: `refresh`.

        Raises:
            QueueAway: If the node of the cluster that has it is down.
        """
        now = time.monotonic()
        name = self.names.queue(channel)
        known = self._declared.get(channel)
        if known is None or now - known > (self._refresh if max_age is None else max_age):
            declaring = self.connection.spawn(self._declare(channel, name))
            await asyncio.shield(declaring)
            if len(self._declared) >= _MOST_DECLARED:
                self._declared.pop(next(iter(self._declared)))
            self._declared[channel] = now
            if known is None:
                await self.publish_raw("", self.names.names, name.encode(), spec.Basic.Properties())
        return name

    async def count(self, channel: str) -> int:
        """How many messages of a channel's queue are on no lease."""
        name = self.names.queue(channel)
        try:
            found = await self.administer(lambda admin: admin.queue_declare(name, passive=True))
        except ChannelNotFoundEntity:
            return 0
        return found.message_count or 0

    def forget(self, channel: str) -> None:
        """A channel's queue is gone."""
        self._declared.pop(channel, None)

    async def flush(self) -> None:
        """Delete every queue whose name was registered."""
        self._declared.clear()
        deleted = {""}
        while True:
            try:
                found = await self.administer(
                    lambda admin: admin.basic_get(self.names.names, no_ack=True)
                )
            except ChannelNotFoundEntity as error:
                logger.warning("RabbitMQ: flush finds no list of queues: %s", error)
                return
            if not isinstance(found.delivery, spec.Basic.GetOk):
                return
            name = found.body.decode(errors="replace")
            # Anyone who may publish can put another's there.
            if not name.startswith(f"{self.names.prefix}.") or len(found.body) > _LONGEST_NAME:
                continue
            if name not in deleted:
                deleted.add(name)
                try:
                    await self.administer(partial(_delete, name))
                except (ChannelNotFoundEntity, ChannelPreconditionFailed) as error:
                    logger.warning("%s could not be deleted: %s", name, error)

    async def _declare(self, channel: str, name: str) -> None:
        arguments = self.names.queue_arguments(channel, self._events.capacity_of(channel))
        try:
            await self.declare_queue(name, arguments)
        except ChannelNotFoundEntity as error:
            raise QueueAway(str(error)) from error
        except ChannelPreconditionFailed:
            # Made with other settings; its messages are worth more than they.
            if channel not in self._differing:
                self._differing.add(channel)
                logger.warning(
                    "The queue %s exists with another capacity or expiry than the settings ask "
                    "for, and is used as it is; it is made anew once it was deleted or unused.",
                    name,
                )

    async def declare_queue(self, name: str, arguments: dict[str, Any]) -> None:
        await self.administer(
            lambda admin: admin.queue_declare(name, durable=True, arguments=arguments)
        )

    # Publishing.

    async def publish(self, key: str, envelope: Envelope, *, mandatory: bool = False) -> None:
        """Give it to the groups' exchange.

        Raises:
            PublishError: If it is mandatory and no queue is bound.
            DeliveryError: If a queue was full.
        """
        async with self._gate:
            await self._admit()
        properties = _properties(envelope, delivery_mode=1)
        await self.publish_raw(self.names.groups, key, envelope.encoded, properties, mandatory)

    async def push(self, channel: str, envelope: Envelope, *, is_returned: bool = False) -> None:
        """Append it to a channel's queue, or put it before the others.

        Raises:
            DeliveryError: If the queue was full.
        """
        while True:
            try:
                async with self._gate:
                    await self._admit()
                    queue = await self.declare(channel)
                properties = _properties(
                    envelope, delivery_mode=self._delivery_mode, priority=int(is_returned)
                )
                await self.publish_raw("", queue, envelope.encoded, properties, mandatory=True)
            except PublishError:
                self.forget(channel)
            except QueueAway:
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                return

    async def publish_raw(
        self,
        exchange: str,
        key: str,
        body: bytes,
        properties: spec.Basic.Properties,
        mandatory: bool = False,
    ) -> None:
        await self._publishing.basic_publish(
            body,
            exchange=exchange,
            routing_key=key,
            properties=properties,
            mandatory=mandatory,
            wait=False,
        )

    async def _admit(self) -> None:
        """Wait while the broker takes nothing, for it is short of memory or disk."""
        while True:
            try:
                async with asyncio.timeout(_BLOCKED_SECONDS):
                    await self.connection.amqp.ready()
            except TimeoutError:
                if self._blocked is None or self._blocked.done():
                    self._blocked = self.connection.spawn(self._tell_blocked())
            else:
                return

    async def _tell_blocked(self) -> None:
        logger.warning("RabbitMQ takes no messages: sends wait up to send_timeout")
        await self.connection.amqp.ready()
        logger.warning("RabbitMQ takes messages again")


def _properties(envelope: Envelope, **others: Any) -> spec.Basic.Properties:
    expiration = None
    if envelope.deadline:
        expiration = str(milliseconds(envelope.deadline / 1000 - time.time()))
    return spec.Basic.Properties(expiration=expiration, **others)


async def _delete(name: str, admin: Channel) -> None:
    await admin.queue_delete(name)
