"""Taking from queues: at most what readers wait for, each message by exactly one process.

A message that the broker delivers is moved in one transaction from its queue to this process's own
`hand` queue, and comes to its reader from there.  If the connection breaks, either the transaction
was carried out, and the message waits here for the reconnect, or it was not, and the message is
still in its queue, at its place.  So none is lost or doubled, whatever breaks but the broker.

A consumer lives while readers wait.  The message that satisfies the last one cancels it before the
transaction, so that the broker delivers no more than is wanted, and capacities stay exact.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from pamqp import commands

from channels.layers.rabbitmq.channel import AmqpChannel, Broken, Properties


class _Consumer:
    __slots__ = ("prefetch", "tag")

    def __init__(self, tag: str, prefetch: int) -> None:
        self.tag = tag
        self.prefetch = prefetch


class Readers:
    """The demand for queues, and the channel of the moment that serves it.

    Args:
        declare: Sees to it that a queue exists; returns its name in the broker.
        forget: Told of a queue that is gone.
        properties: Makes those of a message from this queue that is handed over.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        declare: Callable[[str], Awaitable[str]],
        properties: Callable[[str], Properties],
        forget: Callable[[str], None],
        spawn: Callable[..., asyncio.Task[Any]],
    ) -> None:
        self._declare = declare
        self._forget = forget
        self._properties = properties
        self._spawn = spawn
        self._demand: dict[str, int] = {}
        #: Messages of each queue that are on their way over the `hand` queue.
        self._moving: Counter[str] = Counter()
        self._channel: AmqpChannel | None = None
        self._hand = ""
        self._consumers: dict[str, _Consumer] = {}
        self._queues: dict[str, str] = {}
        self._starting: set[str] = set()
        self._numbers = 0
        self._commit: asyncio.Future[Any] | None = None
        self._is_dirty = False

    def open(self, channel: AmqpChannel, hand: str) -> None:
        """Connected: serve what is in demand."""
        self._channel, self._hand = channel, hand
        channel.call(commands.Tx.Select())
        # What was under way and has not come by now was not carried out.
        self._moving.clear()
        channel.on_content = self._take
        channel.on_method = self._take_method
        for queue in list(self._demand):
            self._adjust(queue)

    def shut(self) -> None:
        """The connection broke; the demand stays."""
        self._channel = None
        self._consumers.clear()
        self._queues.clear()
        self._commit = None
        self._is_dirty = False

    def demand(self, queue: str, count: int) -> None:
        """As `Transport.demand`."""
        if count > 0:
            self._demand[queue] = count
        else:
            self._demand.pop(queue, None)
        self._adjust(queue)

    def arrived(self, queue: str) -> None:
        """A message of the queue has come over the `hand` queue."""
        self._moving[queue] -= 1
        if self._moving[queue] <= 0:
            del self._moving[queue]
        left = self._demand.get(queue, 0) - 1
        if left > 0:
            self._demand[queue] = left
        else:
            self._demand.pop(queue, None)

    def _wanted(self, queue: str) -> int:
        return self._demand.get(queue, 0) - self._moving[queue]

    async def quiesce(self) -> None:
        """Take nothing more, and wait until what was taken is this process's."""
        self._demand.clear()
        for queue in list(self._consumers):
            self._stop(queue)
        while self._commit is not None and self._channel is not None:
            await asyncio.wait([self._commit])
            await asyncio.sleep(0)

    def _adjust(self, queue: str) -> None:
        if self._channel is None:
            return
        wanted, consumer = self._wanted(queue), self._consumers.get(queue)
        if consumer is not None and (wanted <= 0 or wanted > consumer.prefetch):
            self._stop(queue)
            consumer = None
        if wanted > 0 and consumer is None and queue not in self._starting:
            self._starting.add(queue)
            self._spawn(self._start(queue, self._channel), name=f"consumer of {queue}")

    async def _start(self, queue: str, channel: AmqpChannel) -> None:
        try:
            name = await self._declare(queue)
        except Broken:
            return
        finally:
            self._starting.discard(queue)
        wanted = self._wanted(queue)
        if channel is not self._channel:
            self._adjust(queue)
        elif wanted > 0 and queue not in self._consumers:
            self._numbers += 1
            tag = f"reader-{self._numbers}"
            self._consumers[queue] = _Consumer(tag, wanted)
            self._queues[tag] = queue
            # It holds for the consumers that follow.
            channel.call(commands.Basic.Qos(0, min(wanted, 65_535), False))
            channel.call(commands.Basic.Consume(0, name, tag))

    def _stop(self, queue: str) -> None:
        consumer = self._consumers.pop(queue, None)
        if consumer is not None and self._channel is not None:
            del self._queues[consumer.tag]
            self._channel.call(commands.Basic.Cancel(consumer.tag))

    def _take(self, method: Any, _: Properties, body: bytes) -> None:
        channel = self._channel
        if channel is None or not isinstance(method, commands.Basic.Deliver):
            return
        queue = self._queues.get(method.consumer_tag or "")
        wanted = self._wanted(queue) if queue is not None else 0
        if queue is None or wanted <= 0:
            channel.tell(commands.Basic.Reject(method.delivery_tag, True))
            self._commit_soon()
            return
        channel.publish("", self._hand, self._properties(queue), body)
        self._moving[queue] += 1
        if wanted == 1:
            self._stop(queue)
        channel.tell(commands.Basic.Ack(method.delivery_tag or 0, False))
        self._commit_soon()

    def _take_method(self, frame: Any) -> None:
        """The broker has cancelled a consumer: its queue is gone."""
        if isinstance(frame, commands.Basic.Cancel):
            queue = self._queues.pop(frame.consumer_tag or "", None)
            if queue is not None:
                self._consumers.pop(queue, None)
                self._forget(queue)
                self._adjust(queue)

    def _commit_soon(self) -> None:
        """One transaction at a time; what comes meanwhile is in the next."""
        if self._commit is not None:
            self._is_dirty = True
        elif self._channel is not None:
            self._commit = self._channel.call(commands.Tx.Commit())
            self._commit.add_done_callback(self._committed)

    def _committed(self, commit: asyncio.Future[Any]) -> None:
        if commit is not self._commit:
            return
        self._commit = None
        if self._is_dirty:
            self._is_dirty = False
            self._commit_soon()
