"""Queues as this process reads them: who waits, what the broker has leased for them, and its ack.

A leased message is kept here until a reader takes it, and a reader is only woken: so one that is
cancelled at any point takes nothing, and the next reader of that queue in this process gets the
message first, which keeps the order of the queue.  If none comes soon the lease is released, and
the message is at the head of its queue again.

`receive` acknowledges before it hands over.  A reader that was cancelled meanwhile leaves a message
of which nobody here knows whether the broker still has it.  The next reader acknowledges it once
more; without one the release fails if it was acknowledged, and the only copy is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import threading
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Final

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.fanout.delivery import Event
from channels.kit.types import Message
from channels.layers.contract import Leased
from channels.layers.delivery import Deliveries
from channels.layers.process.envelopes import Envelopes
from channels.layers.process.inboxes import wake_first
from channels.layers.process.link import Link

#: Sends (channel, encoded message, seconds until it expires or None for never) to a queue.
Push = Callable[[str, bytes, float | None], Awaitable[None]]

#: Lease of a message that is acknowledged as soon as it is here.
PLAIN_LEASE_SECONDS: Final = 30.0
#: How long a message on lease waits for the next reader, and a demand for one.
GRACE_SECONDS: Final = 0.05
#: The same for one that may be acknowledged: sent again, it comes after all others.
KEEP_SECONDS: Final = 1.0
#: Bounds `close` where the broker does not answer.
CLOSE_SECONDS: Final = 0.3
#: Between two attempts to acknowledge over a backend that is out of reach.
_RETRY_SECONDS: Final = 0.1
#: `Taken.until` of what the broker has forgotten.
_OURS: Final = math.inf


@dataclass(slots=True, eq=False)
class Taken:
    """A message that was leased to this process."""

    leased: Leased
    #: In the order of arrival.
    number: int
    #: When the lease is over, by this process's monotonic clock; infinity once it is known to be
    #: acknowledged: this process has the only copy.
    until: float
    #: The message, once the envelope was opened.
    event: Event | None = None
    #: How often the broker was told to acknowledge it.
    asked: int = 0


@dataclass(slots=True, eq=False)
class ReadQueue:
    """One queue as this process reads it."""

    #: How long its leases run.
    seconds: float
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)
    #: Waiters that were woken for a message and have not taken one yet.
    woken: set[asyncio.Future[None]] = field(default_factory=set)
    #: Messages that no reader has taken, in the order of arrival.
    kept: list[Taken] = field(default_factory=list)
    #: What is left over is not released before.
    keep_until: float = -math.inf
    #: How many the transport may still bring; not counted for a direct one, which is told all.
    asked: int = 0
    #: `asked` will be brought down to the readers there are, and what is left over released.
    is_timed: bool = False
    #: Until all is released nothing is demanded or taken, which would overtake it.
    is_releasing: bool = False

    @property
    def is_used(self) -> bool:
        parts = (self.waiters, self.woken, self.kept)
        return any(parts) or self.asked > 0 or self.is_timed or self.is_releasing

    @property
    def left_over(self) -> int:
        """How many messages no reader was woken for."""
        return 0 if self.is_releasing else len(self.kept) - len(self.woken)

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """A reader that waited is gone."""
        self.woken.discard(waiter)
        with contextlib.suppress(ValueError):
            self.waiters.remove(waiter)

    def remove_left_over(self) -> list[Taken]:
        """Remove and return the last messages, for which no reader was woken."""
        at = len(self.kept) - self.left_over
        self.kept, removed = self.kept[:at], self.kept[at:]
        return removed


class Queues:
    """The readers of all queues in this process; any thread and loop.

    Args:
        push: Sends a message again that was acknowledged and has no reader.
    """

    def __init__(
        self, link: Link, envelopes: Envelopes, deliveries: Deliveries, push: Push
    ) -> None:
        self.link = link
        self.counters = envelopes.counters
        self._envelopes = envelopes
        self._clock = envelopes.clock
        self._deliveries = deliveries
        self._push = push
        #: Guards the queues: readers are on any loop, and a direct transport calls on any thread.
        self._lock = threading.Lock()
        self._queues: dict[str, ReadQueue] = {}
        self._numbers = itertools.count()

    async def receive(self, channel: str) -> Message:
        """The next message of a queue, acknowledged.

        Cancel safety: a cancelled call takes nothing.
        """
        await self.link.start()
        while True:
            taken, event = await self.take(channel)
            try:
                if await self._acknowledge(taken):
                    return event.message
            except asyncio.CancelledError:
                self.keep(taken)
                raise

    async def _acknowledge(self, taken: Taken) -> bool:
        """Acknowledge a message; False if another reader may get it, or has it already."""
        transport, leased = self.link.transport, taken.leased

        def acknowledge() -> Awaitable[bool]:
            taken.asked += 1
            return transport.acknowledge(leased.queue, leased.token)

        while True:
            try:
                if await self.link.do(0, acknowledge):
                    return True
                # Where the answer to an earlier call was lost, a lease that could not have run out
                # yet was ended by that call.
                return taken.asked > 1 and self._clock.monotonic() < taken.until
            except ChannelLayerUnavailable:
                if not taken.asked or self._clock.monotonic() >= taken.until:
                    return False
                await asyncio.sleep(_RETRY_SECONDS)

    async def take(self, channel: str) -> tuple[Taken, Event]:
        """The next message of a queue, on lease unless it was `asked` for already.

        One that is void or unreadable is acknowledged on the way.  Cancel safety: a cancelled call
        takes nothing.
        """
        while True:
            taken = await self._take(channel)
            event = taken.event = taken.event or self._envelopes.open(taken.leased)
            if event is not None:
                return taken, event
            with contextlib.suppress(ChannelLayerUnavailable):
                await self.acknowledge(taken.leased)

    async def _take(self, channel: str) -> Taken:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        while True:
            with self._lock:
                queue = self._queue(channel)
                queue.woken.discard(waiter)
                while queue.kept and not queue.is_releasing:
                    taken = queue.kept.pop(0)
                    # The loop of a reader that was woken for it may have ended long ago.
                    if taken.until > self._clock.monotonic():
                        self._tidy(channel, queue)
                        return taken
                if waiter.done():
                    waiter = waiter.get_loop().create_future()
                queue.waiters.append(waiter)
            self._balance(channel)
            try:
                await waiter
            except asyncio.CancelledError:
                with self._lock:
                    queue.forget(waiter)
                self._balance(channel)
                raise

    def keep(self, taken: Taken) -> None:
        """Its reader was cancelled: keep it for the next, in its place."""
        with self._lock:
            queue = self._queue(taken.leased.queue)
            insort(queue.kept, taken, key=attrgetter("number"))
            if taken.asked:
                queue.keep_until = self._clock.monotonic() + KEEP_SECONDS
        self._balance(taken.leased.queue)

    async def put_back(self, taken: Taken) -> None:
        """End the lease of a message that no reader here takes, or send it again.

        Raises:
            ChannelLayerUnavailable: If the backend was out of reach for `send_timeout`.
            ChannelFull: If there is no room to send it again.
        """
        if taken.until != _OURS:
            is_released = await self.release(taken.leased, 0.0, counted=False)
            if is_released or not taken.asked or self._clock.monotonic() >= taken.until:
                return
            taken.until = _OURS
        event, now = taken.event, self._clock.monotonic()
        assert event is not None, "it was opened before it was acknowledged"
        if event.deadline is not None and event.deadline <= now:
            self.counters["dropped_expired"] += 1
            return
        life = None if event.deadline is None else event.deadline - now
        await self.push(taken.leased.queue, event.message, life)

    async def push(self, channel: str, message: Message, life: float | None) -> None:
        """Send a message to a queue, to expire after `life` seconds; None: never."""
        await self._push(channel, self._envelopes.codec.encode(message), life)

    # The ends of a lease, as `WorkQueue` has them.

    async def acknowledge(self, leased: Leased) -> bool:
        end = self.link.transport.acknowledge
        return await self.link.do(0, lambda: end(leased.queue, leased.token))

    async def release(self, leased: Leased, delay: float, counted: bool) -> bool:
        end = self.link.transport.release
        return await self.link.do(0, lambda: end(leased.queue, leased.token, delay, counted))

    async def extend(self, leased: Leased, seconds: float) -> bool:
        extend = self.link.transport.extend
        return await self.link.do(0, lambda: extend(leased.queue, leased.token, seconds))

    async def close(self) -> None:
        """Put back what no reader here has taken; on the owner loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for channel in list(self._queues):
                    await self._release(channel)

    def on_started(self) -> None:
        """The transport has been started, with nothing in demand; on the owner loop."""
        for channel, queue in list(self._queues.items()):
            queue.asked, queue.is_timed, queue.is_releasing = 0, False, False
            self._balance(channel)

    # What the transport is asked for, and what it brings.

    def _on_leased(self, leased: Leased) -> None:
        with self._lock:
            queue = self._queue(leased.queue)
            queue.asked = max(0, queue.asked - 1)
            until = self._clock.monotonic() + queue.seconds
            queue.kept.append(Taken(leased, next(self._numbers), until))
            self._wake(queue)
            is_awaited = queue.left_over <= 0
        if not is_awaited:
            self._balance(leased.queue)

    def _balance(self, channel: str) -> None:
        """Wake readers for what is here, demand the rest, and release what is left over."""
        if not self.link.is_direct:
            self.link.tell(partial(self._balance_here, channel))
            return
        told = -1
        while True:
            with self._lock:
                queue = self._queue(channel)
                self._wake(queue)
                count, seconds, left_over = len(queue.waiters), queue.seconds, queue.left_over
                self._tidy(channel, queue)
            # Again if another thread's reader came meanwhile, whose word may have come first.
            if count <= told:
                break
            told = count
            self.link.transport.demand(channel, count, seconds, self._on_leased)
        if left_over > 0:
            # It never waits: the first step is the last, and these are at the head of their queue.
            with contextlib.suppress(StopIteration):
                self._release(channel).send(None)

    def _balance_here(self, channel: str) -> None:
        with self._lock:
            queue = self._queue(channel)
            self._wake(queue)
            count = len(queue.waiters)
            is_idle = queue.left_over > 0 or count < queue.asked
            if is_idle and not queue.is_timed:
                queue.is_timed = True
                wait = max(GRACE_SECONDS, queue.keep_until - self._clock.monotonic())
                asyncio.get_running_loop().call_later(wait, self._calm, channel, queue)
            self._tidy(channel, queue)
        if count > queue.asked and not queue.is_releasing:
            self._demand(channel, queue, count)

    def _demand(self, channel: str, queue: ReadQueue, count: int) -> None:
        queue.asked = count
        self.link.transport.demand(channel, count, queue.seconds, self._on_leased)

    def _calm(self, channel: str, queue: ReadQueue) -> None:
        """No reader has come: demand less, and release what is left over."""
        queue.is_timed = False
        if len(queue.waiters) < queue.asked:
            self._demand(channel, queue, len(queue.waiters))
        if queue.left_over > 0 and self._clock.monotonic() >= queue.keep_until:
            with contextlib.suppress(RuntimeError):
                # Unless the layer is closing.
                self.link.owner.spawn(self._release(channel), "channel layer queues")
        else:
            self._balance_here(channel)

    async def _release(self, channel: str) -> None:
        """Release what is left over, the last first: each comes to the head of the queue."""
        with self._lock:
            queue = self._queue(channel)
            left_over = queue.remove_left_over()
            queue.is_releasing = True
        for taken in reversed(left_over):
            try:
                await self.put_back(taken)
            except (ChannelFull, ChannelLayerUnavailable):
                # One that is leased comes again when that has run out.
                if taken.asked and self._clock.monotonic() < taken.until:
                    self.keep(taken)
        queue.is_releasing = False
        self._balance(channel)

    def _wake(self, queue: ReadQueue) -> None:
        """Wake a reader for each message that is left over; under the lock."""
        while queue.left_over > 0 and (waiter := wake_first(queue.waiters)) is not None:
            queue.woken.add(waiter)

    def _queue(self, channel: str) -> ReadQueue:
        queue = self._queues.get(channel)
        if queue is None:
            delivery = self._deliveries.find(channel)
            seconds = PLAIN_LEASE_SECONDS if delivery is None else delivery.visibility_timeout
            queue = self._queues[channel] = ReadQueue(seconds)
        return queue

    def _tidy(self, channel: str, queue: ReadQueue) -> None:
        if not queue.is_used and self._queues.get(channel) is queue:
            del self._queues[channel]
