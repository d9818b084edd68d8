"""Taking from queues at most once: what readers wait for, each message by one process.

A message is asked for, comes, is acknowledged, and goes to its reader when JetStream has confirmed
that: from then on no other process gets it.  If the connection breaks in between, the same is
acknowledged again over the next one, before `ack_wait` is over.  After that it may have gone to
another process.  Whether it has, the stream tells: it still has the message if it never heard of
the acknowledgement; and whoever takes a message that was delivered before leaves a note of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from channels.backends.nats.connection import Broken, Message
from channels.backends.nats.demands import Demand, Demands
from channels.backends.nats.jetstream import JetStream, deliveries_of, sequence_of, words_of
from channels.backends.nats.notes import Notes
from channels.backends.nats.queues import QueueStreams
from channels.exceptions import ChannelsError

#: Part of `ack_wait` in which a message is surely still ours.
_SAFE: Final = 0.8


class Readers(Demands[Demand]):
    """The readers of this process."""

    def __init__(
        self,
        queues: QueueStreams,
        notes: Notes,
        on_pulled: Callable[[str, bytes], None],
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        super().__init__(queues, spawn)
        self._notes = notes
        self._on_pulled = on_pulled
        self._counters = counters
        #: (queue, message, when it came) whose acknowledgement was lost.
        self._unsure: list[tuple[str, Message, float]] = []

    def open(self, stream: JetStream) -> None:
        """Connected: settle what was unsure, and serve what is in demand."""
        self._stream = stream
        unsure, self._unsure = self._unsure, []
        for name, message, came in unsure:
            if time.monotonic() - came < _SAFE * self._streams.plan_of(name).ack_wait:
                self._acknowledge(name, message, came)
            else:
                self._spawn(self._look(stream, name, message, came), name=f"unsure of {name}")
        super().open(stream)

    def demand(self, name: str, count: int) -> None:
        """As `Transport.demand`."""
        queue = self._queues.get(name)
        if queue is None:
            if count <= 0:
                return
            queue = Demand()
            self._add(name, f"reader of {name}", queue, partial(self._take, name, queue))
        queue.wanted = max(0, count)
        queue.pull.adjust()

    async def quiesce(self) -> None:
        """Take nothing more, and wait until what came is this process's."""
        stream = self._stream
        if stream is None:
            return
        for queue in self._queues.values():
            queue.wanted = 0
            queue.pull.close()
        await stream.connection.barrier()
        while any(queue.moving > 0 for queue in self._queues.values()):
            await stream.connection.barrier()

    def _take(self, name: str, queue: Demand, message: Message) -> None:
        stream = self._stream
        assert stream is not None, "messages come over a connection"
        if queue.wanted - queue.moving <= 0:
            self._spawn(self._put_back(stream, name, message), name=f"back to {name}")
            return
        queue.moving += 1
        came = time.monotonic()
        if deliveries_of(message) > 1:
            self._spawn(self._claim(stream, name, message, came), name=f"claim from {name}")
        else:
            self._acknowledge(name, message, came)

    async def _put_back(self, stream: JetStream, name: str, message: Message) -> None:
        """Its reader had gone when it came."""
        try:
            if not self._streams.plan_of(name).is_usual:
                # Others may read this queue by lease, and count attempts.
                await self._notes.add_back(stream, message)
            stream.connection.publish(message.reply, b"-NAK")
        except (Broken, ChannelsError):
            self._counters["put_back_late"] += 1

    async def _claim(self, stream: JetStream, name: str, message: Message, came: float) -> None:
        """Note that it is taken here: whoever had it before may want to know."""
        try:
            await self._notes.claim(stream, message)
        except (Broken, ChannelsError):
            # It is not taken, and comes again.
            self._let_be(name)
        else:
            if time.monotonic() - came < _SAFE * self._streams.plan_of(name).ack_wait:
                self._acknowledge(name, message, came)
            else:
                self._let_be(name)

    def _acknowledge(self, name: str, message: Message, came: float) -> None:
        if self._stream is None:
            self._unsure.append((name, message, came))
            return
        answer = self._stream.connection.request(message.reply, b"+ACK")
        answer.add_done_callback(partial(self._acknowledged, name, message, came))

    def _acknowledged(
        self, name: str, message: Message, came: float, answer: asyncio.Future[Message]
    ) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._unsure.append((name, message, came))
        else:
            self._hand_over(name, message)

    def _hand_over(self, name: str, message: Message) -> None:
        queue = self._queues[name]
        queue.moving -= 1
        queue.wanted = max(0, queue.wanted - 1)
        self._on_pulled(name, message.data)

    def _let_be(self, name: str) -> None:
        """A message is not this process's after all."""
        queue = self._queues[name]
        queue.moving -= 1
        queue.pull.adjust()

    async def _look(self, stream: JetStream, name: str, message: Message, came: float) -> None:
        """Find out what became of an acknowledgement, long after."""
        try:
            where = words_of(message.reply)[0]
            if await stream.is_stored(where, sequence_of(message)):
                is_ours = False
            else:
                # Whoever took it instead has noted that before it acknowledged.
                is_ours = not await self._notes.is_claimed_by_another(stream, message)
        except Broken:
            self._unsure.append((name, message, came))
            return
        except ChannelsError:
            is_ours = False
        if is_ours:
            self._hand_over(name, message)
        else:
            self._counters["left_to_others"] += 1
            self._let_be(name)
