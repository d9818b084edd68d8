"""The inbox of this process: what comes for its channels and for groups that it has joined.

Whether the broker has kept what was in it while the connection was away is told by a marker: a
message that the process sends itself and does not acknowledge, so that it comes again with the next
connection, as all does that was in the inbox.  After a restart of the broker it does not.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, DeliveryError

from channels.backends.rabbitmq.connection import RabbitMQConnection

logger = logging.getLogger("channels.layers")

#: Messages that the broker sends ahead.
_PREFETCH: Final = 500
#: Seconds between attempts at what the broker refuses for now.
_RETRY_SECONDS: Final = 0.05
#: RabbitMQ before 3.12 lets no message be unacknowledged for longer than 30 minutes.
_MARKER_SECONDS: Final = 600.0


class RabbitMQInbox:
    """From one connection to the next.

    Args:
        on_frame: Takes what arrives.
    """

    def __init__(self, node: str, on_frame: Callable[[bytes], None]) -> None:
        self.name = ""
        self._node = node
        self._on_frame = on_frame
        #: How often it moved to another node of the broker's cluster.
        self._moves = 0
        self._reading: Channel
        #: Markers begin so, and no envelope; then comes a number.
        self._mark = b"\0marker" + os.urandom(16)
        self._number = 0
        #: Deliveries of markers that are not acknowledged before the newest came, and whether it
        #: came.
        self._marks: list[int] = []
        self._newest_came = asyncio.Event()

    async def open(self, connection: RabbitMQConnection) -> bool:
        """Read it over this connection; True if the broker has kept it and what was in it.

        Raises:
            AMQPError: If something is refused that must not be, or the connection breaks.
        """
        await self._declare(connection)
        await connection.bind(self.name, [connection.names.key(self._node)])
        self._marks.clear()
        await self._consume(connection)
        kept = await self._renew_marker(connection)
        connection.spawn(self._keep_marker(connection))
        return kept

    async def delete(self, connection: RabbitMQConnection) -> None:
        """The process ends."""
        self._reading.on_consumer_cancel_callbacks.clear()
        async with connection.admin() as admin:
            await admin.queue_delete(self.name)

    async def _declare(self, connection: RabbitMQConnection) -> None:
        while True:
            self.name = connection.names.inbox(self._node, self._moves)
            try:
                await connection.declare_queue(self.name, connection.names.inbox_arguments())
            except ChannelNotFoundEntity:
                logger.warning(
                    "The node of the RabbitMQ cluster that had this process's inbox is down; "
                    "there is a new one elsewhere"
                )
                self._moves += 1
            else:
                return

    async def _consume(self, connection: RabbitMQConnection) -> None:
        """Become the only reader: a former connection is over then, also for the broker."""
        while True:
            self._reading = await connection.open_channel(prefetch=_PREFETCH)
            self._reading.on_consumer_cancel_callbacks.add(
                lambda _: connection.fail("the inbox was deleted")
            )
            try:
                await self._reading.basic_consume(self.name, self._take, exclusive=True)
            except ChannelAccessRefused:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                connection.depend_on(self._reading)
                return

    async def _renew_marker(self, connection: RabbitMQConnection) -> bool:
        """Replace the marker by one behind all that was there; True if one was there."""
        self._number += 1
        self._newest_came.clear()
        while True:
            try:
                await connection.publish_raw(self._newest, routing_key=self.name)
                break
            except DeliveryError:
                # Full; it is being read.
                await asyncio.sleep(_RETRY_SECONDS)
        await self._newest_came.wait()
        *former, newest = self._marks
        self._marks = [newest]
        for tag in former:
            await self._reading.basic_ack(tag, wait=False)
        return bool(former)

    async def _keep_marker(self, connection: RabbitMQConnection) -> None:
        while True:
            await asyncio.sleep(_MARKER_SECONDS)
            await self._renew_marker(connection)

    @property
    def _newest(self) -> bytes:
        return self._mark + b"%d" % self._number

    async def _take(self, message: DeliveredMessage) -> None:
        body, tag = message.body, message.delivery_tag or 0
        if body.startswith(self._mark):
            self._marks.append(tag)
            if body == self._newest:
                self._newest_came.set()
        else:
            self._on_frame(body)
            await self._reading.basic_ack(tag, wait=False)
