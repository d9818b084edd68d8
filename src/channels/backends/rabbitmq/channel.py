"""One AMQP channel: calls that are answered in order, messages out and in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import pamqp.frame
from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

Properties = commands.Basic.Properties
#: Takes (method, properties, body).
OnContent = Callable[[Any, Any, bytes], None]
NOT_FOUND: Final = 404
#: Octets of a frame beside its payload.
OVERHEAD: Final = 8
#: Methods that the broker sends unasked, beside messages.
_UNASKED: Final = (commands.Basic.Ack, commands.Basic.Nack, commands.Basic.Cancel)


class Broken(Exception):
    """A connection serves no more; the cause is in its text."""


class ChannelEnded(Broken):
    """The broker has closed a channel, for what was asked on it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"RabbitMQ closed a channel: {code} {text}")
        self.code = code
        #: A queue is there, but the node of the cluster that has it is not.
        self.is_away = code == NOT_FOUND and "down or inaccessible" in text


class Wire(Protocol):
    """What a channel needs of its connection."""

    frame_max: int

    def write(self, data: bytes) -> None: ...

    def write_frame(self, frame: Any, number: int) -> None: ...

    def fail(self, error: Broken) -> None: ...


class AmqpChannel:
    """Use it at once: all is carried out in the order of the calls.

    Attributes:
        on_content: Takes what is delivered and what is returned.
        on_method: Takes confirms, and consumers that the broker has cancelled.
        may_end: Whether it may be closed by the broker while the connection goes on.
    """

    def __init__(self, wire: Wire, number: int, *, may_end: bool = False) -> None:
        self.on_content: OnContent = _ignore
        self.on_method: Callable[[Any], None] = _ignore
        self.may_end = may_end
        self._wire = wire
        self._number = number
        #: What was asked and is not answered: (method, its future).
        self._asked: deque[tuple[Frame, asyncio.Future[Any]]] = deque()
        self._error: Broken | None = None
        self.call(commands.Channel.Open())

    @property
    def has_ended(self) -> bool:
        return self._error is not None

    def call(self, frame: Frame) -> asyncio.Future[Any]:
        """Send a method that has an answer; the future gets it, or `Broken`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_retrieve)
        if self._error is not None:
            answer.set_exception(self._error)
        else:
            self._asked.append((frame, answer))
            self._wire.write_frame(frame, self._number)
        return answer

    def tell(self, frame: Frame) -> None:
        """Send a method that has none."""
        if self._error is None:
            self._wire.write_frame(frame, self._number)

    def publish(
        self,
        exchange: str,
        key: str,
        properties: Properties,
        body: bytes,
        *,
        mandatory: bool = False,
    ) -> None:
        """Send a message."""
        if self._error is not None:
            return
        method = commands.Basic.Publish(0, exchange, key, mandatory, False)
        number, size = self._number, self._wire.frame_max - OVERHEAD
        frames = [
            pamqp.frame.marshal(method, number),
            pamqp.frame.marshal(ContentHeader(0, len(body), properties), number),
        ]
        for start in range(0, len(body), size):
            frames.append(pamqp.frame.marshal(ContentBody(body[start : start + size]), number))
        self._wire.write(b"".join(frames))

    # What the connection tells.

    def take(self, frame: Any) -> None:
        if isinstance(frame, _UNASKED):
            self.on_method(frame)
        elif isinstance(frame, commands.Channel.Close):
            self.tell(commands.Channel.CloseOk())
            error = ChannelEnded(frame.reply_code or 0, frame.reply_text)
            self.shut(error)
            if not self.may_end:
                self._wire.fail(error)
        elif isinstance(frame, commands.Channel.Flow):
            self.tell(commands.Channel.FlowOk(frame.active))
        else:
            self._answer(frame, frame)

    def _answer(self, frame: Any, result: Any) -> None:
        """Find out what this answers.

        RabbitMQ answers in order, but for a consumer: that is answered by the queue's process.
        """
        for index, (asked, answer) in enumerate(self._asked):
            if frame.name not in asked.valid_responses:
                continue
            if isinstance(asked, commands.Basic.Consume) and asked.consumer_tag != (
                frame.consumer_tag
            ):
                continue
            del self._asked[index]
            if not answer.done():
                answer.set_result(result)
            return

    def take_content(self, method: Any, properties: Any, body: bytes) -> None:
        if isinstance(method, commands.Basic.GetOk):
            self._answer(method, (method, properties, body))
        else:
            self.on_content(method, properties, body)

    def shut(self, error: Broken) -> None:
        """It is over: who waits gets the error."""
        if self._error is not None:
            return
        self._error = error
        asked = list(self._asked)
        self._asked.clear()
        for _, answer in asked:
            if not answer.done():
                answer.set_exception(error)


def _ignore(*_: Any) -> None:
    """For what nobody has asked for."""


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """An answer that nobody waits for is no error that nobody has seen."""
    if not answer.cancelled():
        answer.exception()
