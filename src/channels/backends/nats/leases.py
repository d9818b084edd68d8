"""Taking from queues at least once: a message stays with JetStream until it is finished.

JetStream gives a message that was not acknowledged to another process after `ack_wait`, which is
the lease's time and a margin.  The process that has the lease ends it by its own clock, before that
margin is over; from then on it says nothing about the message any more, because JetStream would
believe it even if the message is another's by now.  So a lease that is over is known to be over
where it was held, unless the server's answers were under way for longer than the margin.

A message on lease stays in its stream, so it counts against the capacity of its queue.

An attempt is a delivery, of which JetStream keeps the count.  Those that were none are noted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from channels.backends.nats.connection import NO_RESPONDERS, Broken, Message
from channels.backends.nats.demands import Demand, Demands
from channels.backends.nats.jetstream import JetStream, deliveries_of, nanoseconds
from channels.backends.nats.notes import Notes, identity_of
from channels.backends.nats.queues import QueueStreams
from channels.exceptions import ChannelsError, TransportDown
from channels.layers.contract import Leased

Taker = Callable[[Leased], None]

#: Seconds by which JetStream waits longer than a lease runs.
MARGIN: Final = 1.0


class _Held:
    """One message on lease."""

    __slots__ = ("back", "due", "identity", "is_ending", "patience", "reply", "sure", "timer")

    def __init__(self, message: Message, now: float, seconds: float, patience: float) -> None:
        self.reply = message.reply
        self.identity = ""
        #: How many of its deliveries were no attempts.
        self.back = 0
        #: JetStream's patience with this consumer, in seconds.
        self.patience = patience
        #: When the lease is over, and until when JetStream surely knows it as ours.
        self.due = now + seconds
        self.sure = now + patience - MARGIN / 2
        self.is_ending = False
        self.timer: asyncio.TimerHandle | None = None


class _Leasing(Demand):
    __slots__ = ("seconds", "taker")

    def __init__(self, taker: Taker) -> None:
        super().__init__()
        self.taker = taker
        self.seconds = 0.0


class LeaseReaders(Demands[_Leasing]):
    """The readers by lease of this process, and what they hold."""

    def __init__(
        self,
        queues: QueueStreams,
        notes: Notes,
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        super().__init__(queues, spawn)
        self._notes = notes
        self._counters = counters
        self._held: dict[bytes, _Held] = {}
        self._boot = os.urandom(8)
        self._numbers = itertools.count(1)
        self._putting_back: set[asyncio.Task[Any]] = set()

    def demand(self, name: str, count: int, seconds: float, taker: Taker) -> None:
        """As `LeasingTransport.demand_leased`."""
        queue = self._queues.get(name)
        if queue is None:
            if count <= 0:
                return
            queue = _Leasing(taker)
            self._add(name, f"leases of {name}", queue, partial(self._take, name, queue))
        queue.wanted, queue.seconds, queue.taker = max(0, count), seconds, taker
        queue.pull.adjust()

    async def quiesce(self) -> None:
        """Take nothing more; what comes nevertheless is given back."""
        stream = self._stream
        if stream is None:
            return
        for queue in self._queues.values():
            queue.wanted = 0
            queue.pull.close()
        await stream.connection.barrier()
        while self._putting_back:
            await asyncio.wait(self._putting_back)
        for held in self._held.values():
            if held.timer is not None:
                held.timer.cancel()

    # Taking.

    def _take(self, name: str, queue: _Leasing, message: Message) -> None:
        stream = self._stream
        assert stream is not None, "messages come over a connection"
        patience = self._streams.plan_of(name).ack_wait
        now = asyncio.get_running_loop().time()
        held = _Held(message, now, queue.seconds, patience)
        if queue.wanted - queue.moving <= 0:
            task = self._spawn(self._put_back(stream, held, message), name=f"back to {name}")
            self._putting_back.add(task)
            task.add_done_callback(self._putting_back.discard)
        elif deliveries_of(message) == 1:
            self._hand_over(name, queue, held, message)
        else:
            queue.moving += 1
            self._spawn(self._look_up(stream, name, queue, held, message), name=f"note of {name}")

    async def _look_up(
        self, stream: JetStream, name: str, queue: _Leasing, held: _Held, message: Message
    ) -> None:
        """It was delivered before: learn how often that was no attempt."""
        try:
            held.back = await self._notes.back(stream, identity_of(message.data))
        except (Broken, ChannelsError):
            # Nobody has it; it comes again.
            queue.moving -= 1
            queue.pull.adjust()
            return
        queue.moving -= 1
        if queue.wanted <= 0:
            await self._put_back(stream, held, message)
        else:
            self._hand_over(name, queue, held, message)

    def _hand_over(self, name: str, queue: _Leasing, held: _Held, message: Message) -> None:
        token = self._boot + next(self._numbers).to_bytes(8, "big")
        held.identity = identity_of(message.data)
        self._held[token] = held
        queue.wanted -= 1
        attempts = max(1, deliveries_of(message) - held.back)
        self._arm(token, held)
        queue.taker(Leased(name, message.data, token, attempts))

    async def _put_back(self, stream: JetStream, held: _Held, message: Message) -> None:
        """Its reader had gone when it came: that was no attempt."""
        try:
            await self._notes.add_back(stream, message)
            if asyncio.get_running_loop().time() < held.sure:
                await stream.connection.request(message.reply, b"-NAK")
        except (Broken, ChannelsError):
            self._counters["put_back_late"] += 1

    # The time of a lease.

    def _arm(self, token: bytes, held: _Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        loop = asyncio.get_running_loop()
        at = held.due if held.due <= held.sure else held.sure - MARGIN / 2
        held.timer = loop.call_at(at, self._on_time, token, held)

    def _on_time(self, token: bytes, held: _Held) -> None:
        now, stream = asyncio.get_running_loop().time(), self._stream
        if held.is_ending or token not in self._held:
            return
        if now >= held.due or now >= held.sure:
            del self._held[token]
            self._counters["leases_run_out"] += 1
            if stream is not None and now < held.sure:
                stream.connection.publish(held.reply, b"-NAK")
        else:
            # It runs on, and JetStream's patience is at its end.
            if stream is not None:
                self._prolong(stream, token, held, now)
            held.timer = asyncio.get_running_loop().call_later(
                MARGIN / 4, self._on_time, token, held
            )

    def _prolong(self, stream: JetStream, token: bytes, held: _Held, now: float) -> None:
        def prolonged(answer: asyncio.Future[Message]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                return
            if not answer.result().status and token in self._held:
                held.sure = now + held.patience - MARGIN / 2
                self._arm(token, held)

        stream.connection.request(held.reply, b"+WPI").add_done_callback(prolonged)

    # Its end.

    async def acknowledge(self, token: bytes) -> bool:
        """As `LeasingTransport.acknowledge`."""
        held = self._find(token)
        if held is None or not await self._tell(token, held, b"+ACK"):
            return False
        self._drop(token)
        if held.back and self._stream is not None:
            self._spawn(self._forget_note(self._stream, held.identity), name="a note's end")
        return True

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """As `LeasingTransport.release`."""
        held = self._find(token)
        if held is None:
            return False
        if not counted:
            held.is_ending = True
            try:
                await self._notes.set_back(self._require_stream(), held.identity, held.back + 1)
            finally:
                self._go_on(token, held)
            if self._find(token) is None:
                return False
        word = b"-NAK"
        if delay > 0:
            word += b' {"delay": %d}' % nanoseconds(delay)
        if not await self._tell(token, held, word):
            return False
        self._drop(token)
        return True

    async def extend(self, token: bytes, seconds: float) -> bool:
        """As `LeasingTransport.extend`."""
        held = self._find(token)
        now = asyncio.get_running_loop().time()
        if held is None or not await self._tell(token, held, b"+WPI"):
            return False
        held.due = now + seconds
        held.sure = now + held.patience - MARGIN / 2
        self._go_on(token, held)
        return True

    def _find(self, token: bytes) -> _Held | None:
        """A lease that is not over."""
        held = self._held.get(token)
        if held is None:
            return None
        now = asyncio.get_running_loop().time()
        if now >= held.due or now >= held.sure:
            self._on_time(token, held)
            return None
        return held

    async def _tell(self, token: bytes, held: _Held, word: bytes) -> bool:
        """Say something of a lease and have it confirmed; False if there is no such message."""
        stream = self._require_stream()
        held.is_ending = True
        try:
            answer = await stream.connection.request(held.reply, word)
        except BaseException:
            # Not said, or not surely: its time runs on.
            self._go_on(token, held)
            raise
        if answer.status == NO_RESPONDERS:
            # Its stream or its consumer has gone.
            self._drop(token)
            return False
        return token in self._held

    def _drop(self, token: bytes) -> None:
        held = self._held.pop(token, None)
        if held is not None and held.timer is not None:
            held.timer.cancel()

    def _go_on(self, token: bytes, held: _Held) -> None:
        held.is_ending = False
        if token in self._held:
            self._arm(token, held)

    async def _forget_note(self, stream: JetStream, identity: str) -> None:
        try:
            await self._notes.forget_back(stream, identity)
        except (Broken, ChannelsError):
            # It goes when its time is over.
            return

    def _require_stream(self) -> JetStream:
        if self._stream is None:
            raise TransportDown("NATS is not connected")
        return self._stream
