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

from aiormq import Channel, spec
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, DeliveryError

from channels.backends.rabbitmq.session import RabbitMQSession

logger = logging.getLogger("channels.layers")

#: Messages that the broker sends ahead.
_PREFETCH: Final = 500
#: Seconds between attempts at what the broker refuses for now.
_RETRY_SECONDS: Final = 0.05
#: RabbitMQ before 3.12 lets no message be unacknowledged for longer than 30 minutes.
_MARKER_SECONDS: Final = 600.0
#: No envelope begins so.
_MARKER: Final = b"\0marker"


class RabbitMQInbox:
    """From one connection to the next.

    Args:
        on_frame: Takes what arrives.
    """

    def __init__(self, node: str, on_frame: Callable[[bytes], None]) -> None:
        self.name = ""
        self.node = node
        self._on_frame = on_frame
        #: How often it moved to another node of the broker's cluster.
        self._moves = 0
        self._reading: Channel
        #: The marker that was here last, the one that is on its way, and the delivery of the one
        #: that is here, which is not acknowledged before the next one came.
        self._former = self._marker = b""
        self._marker_tag = 0
        self._marker_came = asyncio.Event()
        self._found_former = False

    async def open(self, session: RabbitMQSession) -> bool:
        """Read it over this connection; True if the broker has kept it and what was in it.

        Raises:
            AMQPError: If something is refused that must not be, or the connection breaks.
        """
        self._marker_tag, self._found_former = 0, False
        await self._declare(session)
        await session.bind(self.name, [session.names.key(self.node)])
        await self._consume(session)
        await self._mark(session)
        session.connection.spawn(self._refresh_marker(session))
        return self._found_former

    async def delete(self, session: RabbitMQSession) -> None:
        """The process ends."""
        self._reading.on_consumer_cancel_callbacks.clear()
        await session.administer(lambda admin: admin.queue_delete(self.name))

    async def _declare(self, session: RabbitMQSession) -> None:
        while True:
            self.name = session.names.inbox(self.node, self._moves)
            try:
                await session.declare_queue(self.name, session.names.inbox_arguments())
            except ChannelNotFoundEntity:
                logger.warning(
                    "The node of the RabbitMQ cluster that had this process's inbox is down; "
                    "there is a new one elsewhere"
                )
                self._moves += 1
            else:
                return

    async def _consume(self, session: RabbitMQSession) -> None:
        """Become the only reader: a former connection is over then, also for the broker."""
        while True:
            self._reading = await session.open_channel()
            self._reading.on_consumer_cancel_callbacks.add(
                lambda _: session.connection.fail("the inbox was deleted")
            )
            await self._reading.basic_qos(prefetch_count=_PREFETCH)
            try:
                await self._reading.basic_consume(self.name, self._take, exclusive=True)
            except ChannelAccessRefused:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                session.depend_on(self._reading)
                return

    async def _mark(self, session: RabbitMQSession) -> None:
        """Put a new marker into the inbox and wait for it; what was there before comes first."""
        self._marker = _MARKER + os.urandom(16)
        self._marker_came.clear()
        while True:
            try:
                properties = spec.Basic.Properties(delivery_mode=1)
                await session.publish_raw("", self.name, self._marker, properties)
                break
            except DeliveryError:
                # Full; it is being read.
                await asyncio.sleep(_RETRY_SECONDS)
        await self._marker_came.wait()
        self._former = self._marker

    async def _refresh_marker(self, session: RabbitMQSession) -> None:
        while True:
            await asyncio.sleep(_MARKER_SECONDS)
            await self._mark(session)

    async def _take(self, message: DeliveredMessage) -> None:
        body, done = message.body, message.delivery_tag or 0
        if not body.startswith(_MARKER):
            self._on_frame(body)
        elif body == self._former:
            self._found_former = True
            done, self._marker_tag = 0, done
        elif body == self._marker:
            done, self._marker_tag = self._marker_tag, done
            self._marker_came.set()
        if done:
            await self._reading.basic_ack(done, wait=False)
