"""A process's use of one connection, from the log-in to the break.

Six channels: to publish, which also reads the `hand` queue; to read the inbox; for queues, read at
most once and by lease; for what full queues refused; for declarations.  The consumer of the `hand`
queue is exclusive, and on the channel that publishes: once the broker grants it, the former
connection's channel is gone, and all that this had published is where it belongs.  A marker sent to
that queue then comes back behind the last receipt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, ChannelEnded, Properties
from channels.backends.rabbitmq.connection import AmqpConnection
from channels.backends.rabbitmq.declarer import Declarer
from channels.backends.rabbitmq.desk import Desk
from channels.backends.rabbitmq.names import Names
from channels.backends.rabbitmq.publisher import PUSHED, Publication, Publisher
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.contract import TransportEvents

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

PUBLISHING, INBOX, QUEUES, DECLARING, LEASES, FULL = range(1, 7)
#: Kinds of messages in a `hand` queue, in their property `type`.
MOVED: Final = "moved"
MARKER: Final = "marker"
MEMBER: Final = "member"
#: Messages of the inbox that the broker sends ahead.
PREFETCH: Final = 500
_ACCESS_REFUSED: Final = 403
#: The broker still believes in our former connection; seconds between attempts.
_RETRY_SECONDS: Final = 0.05
#: A message must not stay unacknowledged for longer than 30 minutes (`consumer_timeout`).
_MARKER_SECONDS: Final = 600.0
#: Between attempts to delete queues that were left behind.
_TIDY_SECONDS: Final = 5.0

#: Digits of a number that a process counts up to.
_MOST_DIGITS: Final = 19


class Session:
    """One connection in use."""

    def __init__(
        self,
        connection: AmqpConnection,
        node: str,
        names: Names,
        desk: Desk,
        events: TransportEvents,
        on_moved: Callable[[str, bytes], None],
    ) -> None:
        self.connection = connection
        self.publisher: Publisher
        self.declarer: Declarer
        self._node = node
        self._names = names
        self._desk = desk
        self._events = events
        self._on_moved = on_moved
        self._hands: AmqpChannel
        self._inbox: AmqpChannel
        self._found: set[str] = set()
        self._marker_tag = 0
        self._expected: dict[str, asyncio.Future[None]] = {}
        #: Number of a question -> members that have answered.
        self._answers: Counter[str] = Counter()
        self._to_acknowledge = 0
        self._is_closing = False

    async def open(self, declarer: Declarer) -> bool:
        """Introduce this process; true if the broker has kept its inbox and what lay in it.

        Raises:
            Broken: If the connection breaks, or something is refused that must not be.
        """
        self.declarer = declarer
        names, node = self._names, self._node
        await declarer.call(commands.Exchange.Declare(0, names.groups, "direct", durable=True))
        try:
            await declarer.declare_own(names.names, names.names_arguments())
            await declarer.declare_full()
        except ChannelEnded as error:
            # Without them `flush` forgets less, and full queues in groups are not counted.
            if not error.is_away:
                raise
        kept = self._desk.marker != "" and await declarer.exists(self._desk.inbox)
        kept = await self._declare_own() and kept
        await declarer.bind(self._desk.inbox, [names.key(node)])
        await self._consume(PUBLISHING, self._desk.hand, self._take_hand)
        former = self._desk.marker
        await self.fence()
        await self._consume(INBOX, self._desk.inbox, self._take_inbox)
        return kept and former in self._found

    async def _declare_own(self) -> bool:
        """Declare this process's queues; false if their node is down and they had to move."""
        desk, names = self._desk, self._names
        stayed = True
        while True:
            try:
                await self.declarer.declare_own(desk.inbox, names.inbox_arguments())
                await self.declarer.declare_own(desk.hand, names.hand_arguments())
            except ChannelEnded as error:
                if not error.is_away:
                    raise
                logger.warning(
                    "The node of the RabbitMQ cluster that had this process's inbox is down; "
                    "there is a new one elsewhere"
                )
                desk.move()
                stayed = False
            else:
                return stayed

    async def _tidy(self) -> None:
        """Delete what was left behind on a node that was down, when it is up again."""
        for name in list(self._desk.former):
            with contextlib.suppress(ChannelEnded):
                await self.declarer.call(commands.Queue.Delete(0, name))
                self._desk.former.discard(name)

    async def up(self, work: Awaitable[T]) -> T:
        """An operation's result; what goes wrong in the words of `Transport`."""
        try:
            return await work
        except Broken as error:
            raise self.translate(error) from error

    def translate(self, error: Broken) -> Exception:
        """What an operation raises for this."""
        if isinstance(error, ChannelEnded) and not self.connection.ended.done():
            # The connection stands: the broker does not want this, now or later.
            return ChannelLayerUnavailable(str(error))
        return TransportDown(str(error))

    async def _consume(
        self, number: int, queue: str, take: Callable[[Any, Any, bytes], None]
    ) -> None:
        """Become the only reader of a queue; deliveries may come before this returns."""
        while True:
            channel = self.connection.channel(number)
            channel.may_end = True
            channel.on_content = take
            if number == PUBLISHING:
                self._hands = channel
                self.publisher = Publisher(
                    channel, self._desk.hand, lambda: self.connection.is_blocked
                )
                self.connection.on_unblocked = self.publisher.pump
                channel.on_method = self._take_method
                channel.call(commands.Confirm.Select())
            else:
                self._inbox = channel
                channel.on_method = self._take_method
            channel.call(commands.Basic.Qos(0, PREFETCH, False))
            try:
                await channel.call(commands.Basic.Consume(0, queue, queue, exclusive=True))
            except ChannelEnded as error:
                if error.code != _ACCESS_REFUSED:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                channel.may_end = False
                return

    def _take_method(self, frame: Any) -> None:
        if isinstance(frame, commands.Basic.Cancel) and self._is_closing:
            return
        if isinstance(frame, commands.Basic.Cancel):
            # Deleted by someone, or its broker has left the cluster: begin anew.
            self.connection.fail(Broken(f"the queue {frame.consumer_tag} is gone"))
        else:
            self.publisher.take_method(frame)

    # The hand queue.

    async def fence(self) -> None:
        """Wait until all that was in the `hand` queue has come."""
        number = str(next(self._desk.numbers))
        came = self._expected[number] = asyncio.get_running_loop().create_future()
        properties = Properties(message_type=MARKER, message_id=number, delivery_mode=1)
        self._hands.publish("", self._desk.hand, properties, b"")
        # It counts among what is confirmed, and nobody waits for it.
        self.publisher.skip()
        await asyncio.wait([came, self.connection.ended], return_when=asyncio.FIRST_COMPLETED)
        if self.connection.ended.done():
            raise self.connection.ended.result()

    async def count_members(self, group: str) -> int:
        """How many queues are members of a group, as the broker has it.

        Raises:
            TransportDown, Broken: If the connection breaks.
        """
        number = str(next(self._desk.numbers))
        properties = Properties(
            message_type=MEMBER,
            message_id=number,
            delivery_mode=1,
            # The members' queues give it to the queue of this name.
            headers={"CC": [self._desk.hand]},
        )
        names = self._names
        self._answers[number] = 0
        try:
            await self.publisher.publish(
                Publication(names.groups, names.question(group), properties, b"")
            )
            # The broker confirms what it has handed on, so that the answers are in the queue now.
            await self.fence()
            return self._answers[number]
        finally:
            del self._answers[number]

    async def refresh_marker(self) -> None:
        """Replace the marker before it is too old, for ever; and tidy up."""
        while True:
            end = time.monotonic() + _MARKER_SECONDS
            while (left := end - time.monotonic()) > 0:
                await asyncio.sleep(min(left, _TIDY_SECONDS) if self._desk.former else left)
                await self._tidy()
            await self.fence()

    def _take_hand(self, method: Any, properties: Properties, body: bytes) -> None:
        if isinstance(method, commands.Basic.Return):
            self.publisher.take_return(properties)
            return
        kind, number = properties.message_type, properties.message_id or ""
        if kind == MARKER:
            self._take_marker(method.delivery_tag, number)
            return
        if kind == PUSHED:
            self._desk.take_receipt((properties.reply_to or "", number))
        elif kind == MEMBER:
            if number in self._answers:
                self._answers[number] += 1
        # Not all digits: no process has put it there.
        elif kind == MOVED and _is_number(number) and not self._desk.is_moved_again(int(number)):
            self._on_moved(properties.reply_to or "", body)
        self._hands.tell(commands.Basic.Ack(method.delivery_tag, False))

    def _take_marker(self, tag: int, number: str) -> None:
        """The latest stays unacknowledged; it is what a later connection looks for."""
        self._found.add(number)
        if self._marker_tag:
            self._hands.tell(commands.Basic.Ack(self._marker_tag, False))
        self._marker_tag, self._desk.marker = tag, number
        came = self._expected.pop(number, None)
        if came is not None and not came.done():
            came.set_result(None)

    # The inbox.

    def _take_inbox(self, method: Any, _: Properties, body: bytes) -> None:
        if not self._to_acknowledge:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._to_acknowledge = method.delivery_tag
        self._events.on_frame(body)

    def _acknowledge(self) -> None:
        """All that came in this turn, with one word."""
        tag, self._to_acknowledge = self._to_acknowledge, 0
        self._inbox.tell(commands.Basic.Ack(tag, True))

    async def close(self) -> None:
        """Leave nothing behind."""
        self._is_closing = True
        for name in (self._desk.inbox, self._desk.hand):
            await self.declarer.call(commands.Queue.Delete(0, name))
        await self.connection.close()


def _is_number(text: str) -> bool:
    """True for what `Desk.numbers` gives."""
    return text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS
