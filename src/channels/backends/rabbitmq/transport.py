"""The transport over RabbitMQ: what the process's end asks for, in AMQP's words."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from aiormq.exceptions import DeliveryError, PublishError

from channels.backends.driver import DriverTransport
from channels.backends.rabbitmq.address import RabbitMQAddress
from channels.backends.rabbitmq.connection import RabbitMQConnection, connect
from channels.backends.rabbitmq.inbox import RabbitMQInbox
from channels.backends.rabbitmq.leases import RabbitMQLeases
from channels.backends.rabbitmq.names import RabbitMQNames
from channels.exceptions import ChannelFull, NodeGone
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: One line for so many group sends that met a full inbox.
_LOG_EACH: Final = 1000


class RabbitMQTransport(DriverTransport[RabbitMQAddress, RabbitMQConnection, RabbitMQLeases]):
    """Moves envelopes through a broker; see `channels.backends.rabbitmq`."""

    def __init__(self, addresses: Sequence[RabbitMQAddress], names: RabbitMQNames) -> None:
        super().__init__(RabbitMQConnection, addresses)
        self._names = names
        self._inbox: RabbitMQInbox

    def _forget(self) -> None:
        self._inbox = RabbitMQInbox(self._node, self._events.on_frame)

    async def _connect(self, address: RabbitMQAddress) -> RabbitMQConnection:
        return await connect(address, self._node, self._names)

    async def _prepare(self, connection: RabbitMQConnection) -> tuple[RabbitMQLeases, bool]:
        await connection.open()
        kept = await self._inbox.open(connection)
        return RabbitMQLeases(connection, self._counters), kept

    async def _leave(self, connection: RabbitMQConnection, reader: RabbitMQLeases) -> None:  # noqa: ARG002
        await connection.carry_out(self._inbox.delete(connection), is_call=True)

    async def flush(self) -> None:
        connection, _ = self._require()
        await connection.carry_out(connection.flush(), is_call=True)

    async def join(self, groups: Sequence[str]) -> None:
        connection, _ = self._require()
        await connection.carry_out(connection.bind(self._inbox.name, groups), is_call=True)

    async def leave(self, groups: Sequence[str]) -> None:
        connection, _ = self._require()
        await connection.carry_out(connection.unbind(self._inbox.name, groups), is_call=True)

    async def publish(self, group: str, envelope: Envelope) -> None:
        connection, _ = self._require()
        try:
            await connection.carry_out(connection.publish(group, envelope))
        except DeliveryError:
            # RabbitMQ says that one inbox at least was full, not which and how many.
            if self._counters["group_sends_with_full_inbox"] % _LOG_EACH == 0:
                logger.warning("The inbox of a process with members of %s is full", group)
            self._counters["group_sends_with_full_inbox"] += 1

    async def push_node(self, node: str, envelope: Envelope) -> None:
        (connection, _), key = self._require(), self._names.key(node)
        try:
            await connection.carry_out(connection.publish(key, envelope, mandatory=True))
        except PublishError:
            raise NodeGone(node) from None
        except DeliveryError:
            raise ChannelFull(
                f"The inbox of {node} holds its node_capacity of unread messages."
            ) from None

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        connection, _ = self._require()
        try:
            await connection.carry_out(connection.push(queue, envelope))
        except DeliveryError:
            raise ChannelFull(
                f"{queue} holds its capacity of {capacity} unread messages."
            ) from None
