"""Delayed messages: they wait in the broker, and whoever is connected moves them on.

A message waits in queues whose messages expire after 4**n seconds, all of one queue after the same
time, so that none waits behind another; there the broker moves it to the queue `due`.  Each process
reads `due` and sends a message on to the next such queue, the longest that is not too long; keeps
it for the last second, to be exact; and puts it into its channel when the time has come.  Which
process does that does not matter, and the broker gives what one has in hand to another when its
connection goes (`delay_connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, Properties
from channels.backends.rabbitmq.declarer import Declarer
from channels.backends.rabbitmq.names import LEVELS, Names
from channels.backends.rabbitmq.tickets import Ticket, read_ticket
from channels.backends.rabbitmq.transactions import Transactions
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, TransportDown

logger = logging.getLogger("channels.layers")

#: Messages that one process takes from `due` at a time.
PREFETCH: Final = 200
#: Seconds before its time when a message stays with the process that has it.
HAND_SECONDS: Final = 1.0
#: Longest pause between attempts to put a message into a full channel.
_LONGEST_PAUSE: Final = 1.0
#: Seconds between attempts to read `due`.
_AGAIN_SECONDS: Final = 2.0
#: A part of the room that was found is used before it is looked at again, or so many seconds.
_SHARE: Final = 8
_FRESH_SECONDS: Final = 5.0

#: Puts a message where its ticket says; false if there is no room.
Deliver = Callable[[Ticket, bytes], Awaitable[bool]]


def level_of(seconds: float) -> int:
    """The level at which a message waits next, `seconds` before it is to be looked at."""
    level = math.floor(math.log(max(seconds, 4.0 ** LEVELS[0]), 4))
    return min(level, LEVELS[-1])


class WaitingQueues:
    """The queues in which messages wait, and how many do."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = asyncio.Lock()
        #: Sends that passed and may not be in the broker yet.
        self._pending = 0
        #: How many more may be sent before they are counted again, and until when.
        self._allowance = 0
        self._fresh_until = 0.0
        self._declared_by: Declarer | None = None

    def place(self, seconds: float) -> str:
        """The queue for a message that is due after so long."""
        if seconds <= HAND_SECONDS:
            return self._names.due
        return self._names.later(level_of(seconds))

    def pause(self, overdue: float) -> str:
        """The queue for a message whose channel is full."""
        return self._names.later(level_of(min(_LONGEST_PAUSE, overdue / 2)))

    async def declare_once(self, declarer: Declarer) -> None:
        """See to it that all are there, unless that was done over this connection."""
        if self._declared_by is not declarer:
            await self.declare(declarer)

    async def declare(self, declarer: Declarer) -> int:
        """See to it that all are there; how many messages wait in them."""
        names = self._names
        found = await declarer.declare_all(
            [(names.due, {})]
            + [(names.later(level), names.later_arguments(level)) for level in LEVELS]
        )
        self._declared_by = declarer
        return sum(found)

    async def take_room(self, declarer: Declarer, bound: int) -> None:
        """Make sure that one more may wait; `free_room` when the broker has it, or never will.

        Exact for one sender.  Several at a time, in several processes, may exceed the bound by what
        they send before they count again.

        Raises:
            ChannelFull: If `bound` wait.
        """
        async with self._lock:
            now = time.monotonic()
            if self._allowance <= 0 or now > self._fresh_until:
                room = bound - await self.declare(declarer) - self._pending
                if room <= 0:
                    raise ChannelFull(
                        f"{bound} delayed messages are pending already (max_delayed)."
                    )
                self._allowance = 1 + room // _SHARE
                self._fresh_until = now + _FRESH_SECONDS
            self._allowance -= 1
            self._pending += 1

    def free_room(self) -> None:
        self._pending -= 1


class _Held:
    """A message from `due` in this process's hand."""

    __slots__ = ("body", "delivery_mode", "tag", "ticket", "transactions")

    def __init__(
        self,
        transactions: Transactions,
        tag: int,
        ticket: Ticket,
        properties: Properties,
        body: bytes,
    ) -> None:
        self.transactions = transactions
        self.tag = tag
        self.ticket = ticket
        self.delivery_mode = properties.delivery_mode
        self.body = body

    def move(self, queue: str) -> None:
        """Send it on, without what the broker has noted on it."""
        properties = Properties(headers=self.ticket.headers, delivery_mode=self.delivery_mode)
        self.transactions.publish(queue, properties, self.body)
        self.transactions.acknowledge(self.tag)
        self.transactions.commit()


class Pump:
    """Moves on what is in `due`.

    Args:
        deliver: May raise what an operation raises.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        names: Names,
        waiting: WaitingQueues,
        deliver: Deliver,
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        self._names = names
        self._waiting = waiting
        self._deliver = deliver
        self._spawn = spawn
        self._counters = counters
        self._transactions: Transactions | None = None
        self._declarer: Declarer
        self._holds: Callable[[], bool]
        self._is_closing = False
        #: Done once this process is a reader of `due`.
        self._begun: asyncio.Future[Any] | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}
        #: Until then nothing is sent on: a queue to wait in is out of reach.
        self._stuck_until = 0.0
        self._delivering: set[asyncio.Task[Any]] = set()

    def open(self, channel: AmqpChannel, declarer: Declarer, holds: Callable[[], bool]) -> None:
        """Connected.

        Args:
            holds: Whether what is in hand is surely not another's.
        """
        self._transactions, self._declarer = Transactions(channel), declarer
        self._holds = holds
        channel.on_content = self._take_content
        channel.on_method = self._take_method
        self._begin()

    def shut(self) -> None:
        """The connection broke; the broker has all back."""
        self._transactions = self._begun = None
        self._forget()

    async def quiesce(self) -> None:
        """Take nothing more, and finish what is being put into channels."""
        self._is_closing = True
        if self._begun is not None and self._transactions is not None:
            await asyncio.wait([self._begun])
            await self._transactions.call(commands.Basic.Cancel(self._names.due))
        self._forget()
        while self._delivering:
            await asyncio.wait(self._delivering)
        if self._transactions is not None:
            await self._transactions.settle()

    def _forget(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _begin(self) -> None:
        if self._transactions is not None:
            self._spawn(self._consume(self._transactions), name="reader of what is due")

    async def _consume(self, transactions: Transactions) -> None:
        while transactions is self._transactions:
            try:
                await self._declarer.declare_all([(self._names.due, {})])
            except Broken as error:
                # Its node of the cluster is down, for one.
                logger.debug("Delayed messages cannot be read: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if transactions is not self._transactions or self._is_closing:
                return
            transactions.call(commands.Basic.Qos(0, PREFETCH, False))
            name = self._names.due
            self._begun = transactions.call(commands.Basic.Consume(0, name, name))
            return

    def _take_method(self, frame: Any) -> None:
        if isinstance(frame, commands.Basic.Cancel):
            # Deleted, by `flush` for one: what it had given us is void.
            self._begun = None
            self._forget()
            self._begin()

    def _take_content(self, method: Any, properties: Any, body: bytes) -> None:
        transactions, ticket = self._transactions, read_ticket(properties)
        if isinstance(method, commands.Basic.Return):
            self._spawn(self._restore(properties, body), name="delayed message to restore")
        elif transactions is not None and ticket is None:
            self._counters["dropped_malformed_delayed"] += 1
            transactions.acknowledge(method.delivery_tag)
            transactions.commit()
        elif transactions is not None and ticket is not None:
            self._look(_Held(transactions, method.delivery_tag, ticket, properties, body))

    def _look(self, held: _Held) -> None:
        self._timers.pop(held.tag, None)
        left, loop = held.ticket.due / 1000 - time.time(), asyncio.get_running_loop()
        if left <= HAND_SECONDS:
            self._timers[held.tag] = loop.call_later(max(0.0, left), self._due, held)
        elif loop.time() < self._stuck_until:
            again = min(left, _AGAIN_SECONDS)
            self._timers[held.tag] = loop.call_later(again, self._look, held)
        else:
            held.move(self._waiting.place(left))

    def _due(self, held: _Held) -> None:
        del self._timers[held.tag]
        if not self._holds():
            return
        task = self._spawn(self._put(held), name="delayed message")
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    async def _put(self, held: _Held) -> None:
        try:
            done = await self._deliver(held.ticket, held.body)
        except TransportDown:
            return
        except ChannelLayerUnavailable as error:
            logger.debug("A delayed message cannot be put into its channel yet: %s", error)
            done = False
        if done:
            held.transactions.acknowledge(held.tag)
            held.transactions.commit()
        else:
            self._counters["delayed_put_off"] += 1
            held.move(self._waiting.pause(time.time() - held.ticket.due / 1000))

    async def _restore(self, properties: Properties, body: bytes) -> None:
        """The queue to wait in is gone, or its node is: back to `due`."""
        self._counters["delayed_put_back"] += 1
        while (transactions := self._transactions) is not None:
            self._stuck_until = asyncio.get_running_loop().time() + _AGAIN_SECONDS
            try:
                with contextlib.suppress(Broken):
                    await self._waiting.declare(self._declarer)
                await self._declarer.declare_all([(self._names.due, {})])
            except Broken:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            transactions.publish(self._names.due, properties, body)
            transactions.commit()
            return
