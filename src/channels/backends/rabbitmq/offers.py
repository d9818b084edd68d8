"""Putting messages into the queues of channels, each once, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from channels.backends.rabbitmq.channel import Broken, ChannelEnded, Properties
from channels.backends.rabbitmq.delays import WaitingQueues
from channels.backends.rabbitmq.desk import Desk
from channels.backends.rabbitmq.names import Names, milliseconds
from channels.backends.rabbitmq.publisher import Fate, Publication
from channels.backends.rabbitmq.session import Session
from channels.backends.rabbitmq.tickets import Ticket
from channels.exceptions import ChannelFull, MalformedEnvelope
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.redaction import printable

logger = logging.getLogger("channels.layers")

#: Seconds between looks at queues whose node of the cluster is down.
_AGAIN_SECONDS: Final = 0.5


class Offers:
    """What a process sends to channels that no process owns.

    Args:
        session: The one in use; raises TransportDown if there is none.
    """

    def __init__(
        self,
        names: Names,
        desk: Desk,
        session: Callable[[], Session],
        counters: Counter[str],
        *,
        persistent: bool,
    ) -> None:
        self.waiting = WaitingQueues(names)
        self._names = names
        self._desk = desk
        self._session = session
        self._counters = counters
        self._delivery_mode = 2 if persistent else 1

    def properties(self, envelope: Envelope | None, headers: Any = None) -> Properties:
        """Those of a message in a queue."""
        properties = Properties(delivery_mode=self._delivery_mode, headers=headers)
        if envelope is not None and envelope.deadline:
            left = envelope.deadline / 1000 - time.time()
            properties.expiration = str(milliseconds(left))
        return properties

    async def offer(
        self,
        channel: str,
        envelope: Envelope,
        *,
        head: bool = False,
        attempts: int = 0,
        occasion: str = "",
        waits: bool = True,
    ) -> bool:
        """Append to a channel, or put it before its others; false if that is full.

        A kept channel has always room at its head.

        Args:
            occasion: What tells this offer from others of the same envelope.
            waits: For a node of the cluster that is down; otherwise that is an error.

        Raises:
            TransportDown, ChannelLayerUnavailable: As an operation.
        """
        names = self._names
        to_returned = head and names.keeps(channel)
        priority = 1 if head and not to_returned else 0
        queue = names.returned(channel) if to_returned else names.queue(channel)
        mark = (queue, f"{envelope.sender.hex()}.{envelope.seq}.{priority}{occasion}")
        headers = Ticket(channel, attempts).headers if attempts or to_returned else None
        while not self._desk.was_stored(mark):
            session = self._session()
            if waits and (returning := session.declarer.waits_for(channel)) is not None:
                await session.up(asyncio.shield(returning))
            properties = self.properties(envelope, headers)
            properties.priority = priority or None
            publication = Publication(
                *("", queue, properties, envelope.encoded),
                mandatory=True,
                mark=mark,
                ready=session.declarer.declare(channel),
            )
            try:
                fate = await session.publisher.publish(publication)
            except ChannelEnded as error:
                if not (error.is_away and waits):
                    raise session.translate(error) from error
                session.declarer.await_node(channel)
                continue
            except Broken as error:
                raise session.translate(error) from error
            if fate is not Fate.RETURNED:
                return fate is Fate.TAKEN
            session.declarer.forget(channel)
        return True

    async def hold(self, channel: str, envelope: Envelope, due: float, bound: int) -> None:
        """As `DelayingTransport.push_later`."""
        mark = ("", f"{envelope.sender.hex()}.{envelope.seq}")
        ticket = Ticket(channel, due=int(due * 1000))
        if self._desk.was_stored(mark):
            return
        session, waiting = self._session(), self.waiting
        await self._until_near(session, lambda: waiting.take_room(session.declarer, bound))
        try:
            while True:
                properties = self.properties(None, ticket.headers)
                publication = Publication(
                    *("", waiting.place(due - time.time()), properties, envelope.encoded),
                    mandatory=True,
                    mark=mark,
                )
                fate = await session.up(session.publisher.publish(publication))
                if fate is Fate.TAKEN:
                    return
                if fate is Fate.REFUSED:
                    raise ChannelFull("The broker bounds the queues of delayed messages.")
                await self._until_near(session, lambda: waiting.declare(session.declarer))
        finally:
            waiting.free_room()

    async def _until_near(self, session: Session, work: Callable[[], Awaitable[Any]]) -> None:
        """Do it, again and again while a node of the cluster that it needs is down."""
        while True:
            try:
                await work()
            except ChannelEnded as error:
                if not error.is_away:
                    raise session.translate(error) from error
                await asyncio.sleep(_AGAIN_SECONDS)
            except Broken as error:
                raise session.translate(error) from error
            else:
                return

    # What is put back by others: `leases.Places`, and the pump.

    async def deliver(self, ticket: Ticket, body: bytes) -> bool:
        """Put a message where its ticket says; false if there is no room.

        Raises:
            TransportDown, ChannelLayerUnavailable: As an operation.
        """
        keeps = self._names.keeps(ticket.channel)
        try:
            envelope = decode_envelope(body)
        except MalformedEnvelope as error:
            if self._counters["dropped_malformed_delayed"] % 1000 == 0:
                logger.warning("A message for %s was dropped: %s", ticket.channel, printable(error))
            self._counters["dropped_malformed_delayed"] += 1
            return True
        if not keeps and envelope.is_expired(time.time()):
            self._counters["dropped_expired_delayed"] += 1
            return True
        offer = partial(
            self.offer,
            ticket.channel,
            envelope,
            attempts=ticket.attempts,
            # It may be held more than once.
            occasion=f".{ticket.attempts}.{ticket.due}",
            waits=False,
        )
        if await offer(head=ticket.is_head):
            return True
        # It was accepted once: in a kept channel there is room for it before the others.
        return keeps and await offer(head=True)

    def head(self, channel: str, attempts: int, body: bytes) -> tuple[str, Properties]:
        """As `leases.Places`."""
        try:
            envelope = decode_envelope(body)
        except MalformedEnvelope:
            envelope = None
        ticket = Ticket(channel, attempts, is_head=True)
        return self._names.returned(channel), self.properties(envelope, ticket.headers)

    def later(self, channel: str, attempts: int, delay: float) -> tuple[str, Properties]:
        """As `leases.Places`."""
        ticket = Ticket(channel, attempts, int((time.time() + delay) * 1000), is_head=True)
        return self.waiting.place(delay), self.properties(None, ticket.headers)
