"""Who waits for queues in this process, and what the broker leases to it for them.

A cancelled reader takes nothing.  The message that was on its way to it is kept here for a moment,
and the next reader of that queue in this process gets it first, so that the order of the queue
holds.  If none comes it goes back: one on lease is released, to the head of its queue; one that is
acknowledged already has left the broker and is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from channels.exceptions import ChannelFull, ChannelLayerUnavailable, MalformedEnvelope
from channels.fanout.event import Event
from channels.fanout.hub import running_loop
from channels.kit.types import Message
from channels.layers.contract import Leased, WorkQueue
from channels.layers.delivery import Deliveries
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.process.link import Link
from channels.layers.process.port import Ports
from channels.layers.process.read_queue import ReadQueue, Taken, Waiter
from channels.layers.process.reception import Reception

#: Sends (channel, message, seconds until it expires or None for never) to a queue.
Push = Callable[[str, Message, float | None], Awaitable[None]]

#: Lease of a message that is acknowledged as soon as it is here.
PLAIN_LEASE_SECONDS: Final = 30.0
#: How long a message on lease waits for the next reader, and a demand for one.
GRACE_SECONDS: Final = 0.05
#: The same for a message that is acknowledged: sent again, it comes after all others.
KEEP_SECONDS: Final = 1.0
#: Bounds `close` where the broker does not answer.
CLOSE_SECONDS: Final = 0.3


class QueueReaders:
    """The readers of all queues in this process; any thread and loop.

    Args:
        push: Sends a message again that was acknowledged and has no reader.
    """

    def __init__(
        self, link: Link, reception: Reception, ports: Ports, deliveries: Deliveries, push: Push
    ) -> None:
        self._link = link
        self._reception = reception
        self.clock = reception.clock
        self._ports = ports
        self._deliveries = deliveries
        self._push = push
        #: Guards the queues: readers are on any loop, and a direct transport calls on any thread.
        self._lock = threading.Lock()
        self._queues: dict[str, ReadQueue] = {}
        self._numbers = itertools.count()
        self._unsettled: set[asyncio.Task[Any]] = set()

    async def take(self, channel: str, *, is_plain: bool) -> Taken:
        """The next message of a queue, on lease; or acknowledged already, if `is_plain`.

        Cancel safety: a cancelled call takes nothing.
        """
        waiter = Waiter(is_plain)
        with self._lock:
            queue = self._queue(channel)
            queue.waiters.append(waiter)
            is_left = bool(queue.kept)
        if is_left:
            self._serve(channel)
        self._ask(channel)
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            self._leave(channel, waiter)
            raise

    def open(self, taken: Taken) -> Event | None:
        """The event in a message; None if it is void or unreadable, and then it is acknowledged."""
        if taken.event is None:
            leased = taken.leased
            try:
                data = leased.data
                envelope = data if isinstance(data, Envelope) else decode_envelope(data)
                taken.event = self._reception.open(envelope, leased.queue)
            except MalformedEnvelope as error:
                self._reception.count_malformed(error)
            if taken.event is None:
                acknowledge = partial(self._transport.acknowledge, leased.queue, leased.token)
                self._link.do_later(acknowledge)
        return taken.event

    def keep(self, taken: Taken) -> None:
        """Its reader was cancelled: give it to the next."""
        self._give(taken)
        # If another has it, one less is wanted.
        self._ask(taken.leased.queue)

    def settle(self, channel: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something for a cancelled reader, and ask for nothing of that queue until it is done.

        On the owner loop.
        """
        task = self._spawn(work)
        if task is None:
            return
        with self._lock:
            queue = self._queue(channel)
            queue.unsettled += 1

        def done(_task: object) -> None:
            self._unsettled.discard(task)
            with self._lock:
                queue.unsettled = max(0, queue.unsettled - 1)
            self._serve(channel)
            self._ask(channel)

        self._unsettled.add(task)
        task.add_done_callback(done)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
        doing = work()
        try:
            return self._link.owner.spawn(doing, "channel layer queues")
        except RuntimeError:
            # The layer is closing.
            doing.close()
            return None

    async def close(self) -> None:
        """Put back what no reader here has taken; on the owner loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._unsettled:
                    await asyncio.wait(self._unsettled)
                for channel, queue in list(self._queues.items()):
                    await self._release_kept(channel)
                    for taken in list(queue.kept):
                        # What is leased meanwhile comes again when its lease has run out.
                        if taken.is_acknowledged:
                            await self._send_again(taken)

    def on_started(self) -> None:
        """The transport has been started, with nothing in demand; on the owner loop."""
        self._unsettled.clear()
        for channel, queue in list(self._queues.items()):
            queue.asked, queue.unsettled, queue.is_timed = 0, 0, False
            for taken in queue.kept:
                self._put_back(taken)
            self._ask(channel)

    # What the transport is asked for, and what it brings.

    @property
    def _transport(self) -> WorkQueue:
        return self._link.transport

    def _ask(self, channel: str) -> None:
        if self._link.is_direct:
            self._ask_direct(channel)
        else:
            self._link.tell(partial(self._tell, channel))

    def _ask_direct(self, channel: str) -> None:
        told = -1
        while True:
            with self._lock:
                queue = self._queues.get(channel)
                count = len(queue.waiters) if queue is not None else 0
                seconds = queue.seconds if queue is not None else 0.0
            # Again if another thread's reader came meanwhile, whose word may have come first.
            if count <= told:
                return
            told = count
            self._transport.demand(channel, count, seconds, self._on_leased)

    def _tell(self, channel: str) -> None:
        """Ask for as many as there are readers; if that is less than before, not at once."""
        queue = self._queues.get(channel)
        if queue is None or queue.unsettled:
            return
        count = len(queue.waiters)
        if count > queue.asked:
            queue.asked = count
            self._transport.demand(channel, count, queue.seconds, self._on_leased)
        elif count < queue.asked:
            self._calm_later(channel, queue)

    def _calm_later(self, channel: str, queue: ReadQueue) -> None:
        if not queue.is_timed:
            queue.is_timed = True
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._calm, channel, queue)

    def _calm(self, channel: str, queue: ReadQueue) -> None:
        """No reader has come: ask for less, and release what is kept."""
        queue.is_timed = False
        count = len(queue.waiters)
        if count < queue.asked:
            queue.asked = count
            self._transport.demand(channel, count, queue.seconds, self._on_leased)
        with self._lock:
            self._tidy(channel, queue)
        if any(not taken.is_acknowledged for taken in queue.kept):
            self.settle(channel, partial(self._release_kept, channel))

    def _on_leased(self, leased: Leased) -> None:
        with self._lock:
            queue = self._queue(leased.queue)
            queue.asked = max(0, queue.asked - 1)
            until = self.clock.monotonic() + queue.seconds
        self._give(Taken(leased, next(self._numbers), until))

    def _give(self, taken: Taken) -> None:
        """Give a message to the first reader here; without one, keep it for the next."""
        if not self._serve(taken.leased.queue, taken):
            self._put_back(taken)

    def _serve(self, channel: str, given: Taken | None = None) -> bool:
        """Hand over as long as there is a message and a reader for it; False if `given` is left."""
        kept = given
        while True:
            with self._lock:
                queue = self._queue(channel)
                if kept is not None:
                    queue.keep(kept)
                pair = queue.next_pair()
                is_left = pair is None and given in queue.kept
                if is_left and given is not None and self._link.is_direct:
                    queue.kept.remove(given)
                self._tidy(channel, queue)
            if pair is None:
                return not is_left
            taken, waiter = pair
            kept = None if self._hand_over(waiter, taken) else taken
            if taken is given and kept is None:
                return True

    def _hand_over(self, waiter: Waiter, taken: Taken) -> bool:
        """Give a message to a reader; False if that is gone."""

        def give() -> None:
            if waiter.answer.done():
                self.keep(taken)
            else:
                waiter.answer.set_result(taken)

        if waiter.loop is not running_loop():
            return self._ports.post(waiter.loop, give)
        if waiter.answer.done():
            return False
        waiter.answer.set_result(taken)
        return True

    def _leave(self, channel: str, waiter: Waiter) -> None:
        """A reader was cancelled while it waited."""
        with self._lock:
            queue = self._queue(channel)
            if waiter in queue.waiters:
                queue.waiters.remove(waiter)
            self._tidy(channel, queue)
        if waiter.answer.done() and not waiter.answer.cancelled():
            self.keep(waiter.answer.result())
        else:
            self._ask(channel)

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

    # Back to the broker.

    def _put_back(self, taken: Taken) -> None:
        """No reader here has it."""
        channel = taken.leased.queue
        if self._link.is_direct:
            # At the head of its queue before this returns.
            self._link.do_later(self._releasing(taken))
        elif taken.is_acknowledged:
            self._link.tell(partial(self._send_again_later, taken))
        else:
            self._link.tell(lambda: self._calm_later(channel, self._queue(channel)))

    def _releasing(self, taken: Taken) -> Callable[[], Coroutine[Any, Any, bool]]:
        leased = taken.leased
        return partial(self._transport.release, leased.queue, leased.token, 0.0, counted=False)

    async def _release_kept(self, channel: str) -> None:
        """Release what is on lease, the last first: each comes to the head of the queue."""
        with self._lock:
            queue = self._queue(channel)
            kept = queue.remove_leased()
            self._tidy(channel, queue)
        for taken in reversed(kept):
            with contextlib.suppress(ChannelLayerUnavailable):
                await self._link.do(0, self._releasing(taken))

    def _send_again_later(self, taken: Taken) -> None:
        again = partial(self._send_again, taken)
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._spawn, again)

    async def _send_again(self, taken: Taken) -> None:
        channel, event, life = taken.leased.queue, taken.event, None
        with self._lock:
            queue = self._queue(channel)
            is_kept = taken in queue.kept
            if is_kept:
                queue.kept.remove(taken)
            self._tidy(channel, queue)
        if not is_kept:
            return
        assert event is not None, "it was opened before it was acknowledged"
        if event.deadline is not None:
            life = event.deadline - self.clock.monotonic()
            if life <= 0:
                self._reception.counters["dropped_expired"] += 1
                return
        try:
            await self._push(channel, event.message, life)
        except (ChannelFull, ChannelLayerUnavailable):
            self.keep(taken)
