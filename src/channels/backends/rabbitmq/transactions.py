"""Publishing and acknowledging on one channel, so that both are carried out or neither.

What is said between two commits is one transaction.  The broker carries out a commit that has
reached it whole, and nothing of one that has not.  A message that a queue refuses would break that
(RabbitMQ then acknowledges and does not publish), so what is published here goes to queues without
a bound.

RabbitMQ closes a channel that is used while a commit is under way.  So all that is said meanwhile,
whatever it is, waits for the end of the commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from pamqp import commands
from pamqp.base import Frame

from channels.backends.rabbitmq.channel import AmqpChannel, Properties


class Transactions:
    """One channel in transaction mode."""

    def __init__(self, channel: AmqpChannel) -> None:
        self._channel = channel
        self._commit: asyncio.Future[Any] | None = None
        #: What is said when that is done.
        self._line: list[Callable[[], None]] = []
        #: Of the commit that follows.
        self._next: asyncio.Future[Any] | None = None
        channel.call(commands.Tx.Select())

    def call(self, frame: Frame) -> asyncio.Future[Any]:
        """As `AmqpChannel.call`."""
        if self._commit is None:
            return self._channel.call(frame)
        answer = _future()
        self._line.append(partial(self._call, frame, answer))
        return answer

    def publish(self, queue: str, properties: Properties, body: bytes) -> None:
        """To a queue without a bound; comes back as `Basic.Return` if there is none."""
        self._say(partial(self._channel.publish, "", queue, properties, body, mandatory=True))

    def acknowledge(self, tag: int) -> None:
        self._say(partial(self._channel.tell, commands.Basic.Ack(tag, False)))

    def reject(self, tag: int) -> None:
        """Back to its place in its queue."""
        self._say(partial(self._channel.tell, commands.Basic.Reject(tag, True)))

    def commit(self) -> asyncio.Future[Any]:
        """What was said so far becomes true; done when it has, `Broken` if it may not have."""
        if self._commit is not None:
            if self._next is None:
                self._next = _future()
            return self._next
        self._commit = self._channel.call(commands.Tx.Commit())
        self._commit.add_done_callback(self._committed)
        return self._commit

    async def settle(self) -> None:
        """Wait until no commit is under way, or the connection has broken."""
        while (last := self._next or self._commit) is not None:
            await asyncio.wait([last])
            await asyncio.sleep(0)

    def _say(self, what: Callable[[], None]) -> None:
        if self._commit is None:
            what()
        else:
            self._line.append(what)

    def _call(self, frame: Frame, answer: asyncio.Future[Any]) -> None:
        self._channel.call(frame).add_done_callback(partial(_copy, answer))

    def _committed(self, _: asyncio.Future[Any]) -> None:
        self._commit = None
        line, self._line = self._line, []
        for what in line:
            what()
        following, self._next = self._next, None
        if following is not None:
            self.commit().add_done_callback(partial(_copy, following))


def _future() -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(_retrieve)
    return future


def _copy(to: asyncio.Future[Any], done: asyncio.Future[Any]) -> None:
    if to.done():
        return
    if done.cancelled():
        to.cancel()
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """An answer that nobody waits for is no error that nobody has seen."""
    if not answer.cancelled():
        answer.exception()
