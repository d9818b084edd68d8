"""Publishing with confirms: in the order of the calls, many under way, each answered.

What was under way when the connection broke may or may not have been carried out.  For inboxes
that does not matter: they drop what comes twice.  A queue has many readers, so a push is followed,
in the same write, by a receipt to the sender's own `hand` queue.  That says after a reconnect
whether a push has been carried out.  (A copy of the message by RabbitMQ's header BCC would do it in
one command, but it hides that the queue itself is gone: with a copy, a message is never returned.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, Properties
from channels.exceptions import TransportDown

#: Octets that may be under way without a confirm; what is over waits for its turn.
MAX_UNCONFIRMED: Final = 8 * 1024 * 1024
#: Messages.
MAX_TAGS: Final = 4096

#: The property `type` of a receipt.
PUSHED: Final = "push"

#: (queue, id of the message).
Mark = tuple[str, str]


class Fate(Enum):
    """What became of a message."""

    TAKEN = "taken"
    #: A queue that it was for is full.
    REFUSED = "refused"
    #: There is no queue that it could go to.
    RETURNED = "returned"


class Publication:
    """A message on its way."""

    __slots__ = (
        "answer",
        "body",
        "exchange",
        "key",
        "mandatory",
        "mark",
        "properties",
        "ready",
        "returned",
    )

    def __init__(
        self,
        exchange: str,
        key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
        mark: Mark | None = None,
        ready: asyncio.Future[Any] | None = None,
    ) -> None:
        self.exchange = exchange
        self.key = key
        self.properties = properties
        self.body = body
        self.mandatory = mandatory
        #: What tells its receipt.
        self.mark = mark
        #: It is held back, and all behind it, until this is done.
        self.ready = ready
        self.returned = False
        self.answer: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()


class Publisher:
    """The line of what is to be published, over one channel in confirm mode.

    Args:
        is_blocked: Whether the broker takes messages; `pump` is called when it does again.
    """

    def __init__(
        self, channel: AmqpChannel, hand: str, is_blocked: Callable[[], bool] = lambda: False
    ) -> None:
        self._channel = channel
        self._is_blocked = is_blocked
        self._hand = hand
        self._line: deque[Publication] = deque()
        self._unconfirmed: OrderedDict[int, Publication] = OrderedDict()
        self._bytes = 0
        self._tag = 0
        self._error: TransportDown | None = None

    async def publish(self, publication: Publication) -> Fate:
        """Send it in its turn, which it takes before the first await, and wait for its fate.

        Raises:
            TransportDown: If the connection breaks before that is known.
            Broken: If what it had to wait for has failed.
        """
        if self._error is not None:
            raise self._error
        self._line.append(publication)
        if publication.ready is not None:
            publication.ready.add_done_callback(self.pump)
        self.pump()
        try:
            return await publication.answer
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._line.remove(publication)
            raise

    def pump(self, *_: Any) -> None:
        """Send what may be sent."""
        if self._is_blocked():
            return
        while self._line and self._bytes < MAX_UNCONFIRMED and len(self._unconfirmed) < MAX_TAGS:
            first = self._line[0]
            if first.answer.done():
                # Its caller has gone.
                self._line.popleft()
                continue
            if first.ready is not None:
                if not first.ready.done():
                    return
                if error := _error_of(first.ready):
                    self._line.popleft()
                    first.answer.set_exception(error)
                    continue
            self._line.popleft()
            self._write(first)

    def _write(self, publication: Publication) -> None:
        self._tag += 1
        self._unconfirmed[self._tag] = publication
        self._bytes += len(publication.body)
        publication.properties.correlation_id = str(self._tag)
        self._channel.publish(
            publication.exchange,
            publication.key,
            publication.properties,
            publication.body,
            mandatory=publication.mandatory,
        )
        if publication.mark is not None:
            queue, number = publication.mark
            receipt = Properties(
                message_type=PUSHED, reply_to=queue, message_id=number, delivery_mode=1
            )
            self._channel.publish("", self._hand, receipt, b"")
            self.skip()

    def skip(self) -> None:
        """Something was published on the channel that nobody waits for; its confirm comes."""
        self._tag += 1

    def take_method(self, frame: Any) -> None:
        """A confirm."""
        if not isinstance(frame, commands.Basic.Ack | commands.Basic.Nack):
            return
        fate = Fate.TAKEN if isinstance(frame, commands.Basic.Ack) else Fate.REFUSED
        tag = frame.delivery_tag or 0
        if not frame.multiple:
            self._settle(tag, fate)
        else:
            while self._unconfirmed and (first := next(iter(self._unconfirmed))) <= tag:
                self._settle(first, fate)
        self.pump()

    def take_return(self, properties: Properties) -> None:
        """A message that found no queue; its confirm follows."""
        publication = self._unconfirmed.get(int(properties.correlation_id or 0))
        if publication is not None:
            publication.returned = True

    def _settle(self, tag: int, fate: Fate) -> None:
        publication = self._unconfirmed.pop(tag, None)
        if publication is None:
            return
        self._bytes -= len(publication.body)
        if not publication.answer.done():
            publication.answer.set_result(Fate.RETURNED if publication.returned else fate)

    def shut(self) -> list[Mark]:
        """The connection broke; returns the marks of what may have been carried out."""
        self._error = TransportDown("the connection to RabbitMQ broke")
        unsure = [each.mark for each in self._unconfirmed.values() if each.mark is not None]
        waiting = [*self._unconfirmed.values(), *self._line]
        self._unconfirmed.clear()
        self._line.clear()
        for publication in waiting:
            if not publication.answer.done():
                publication.answer.set_exception(self._error)
                publication.answer.exception()
        return unsure


def _error_of(ready: asyncio.Future[Any]) -> BaseException | None:
    if ready.cancelled():
        return Broken("what it waited for was given up")
    return ready.exception()
