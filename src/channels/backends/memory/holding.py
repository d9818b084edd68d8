"""Envelopes that a memory engine holds back: those to be delivered later, and those on lease.

They are one thing: an envelope that is not in its queue now and enters it at a certain time, unless
it is finished before.  A delayed one goes to the queue's end, as if it had been sent just then; one
whose lease ran out, or that is to be tried again, to the head, where it came from.  Neither counts
against the queue's capacity: it was accepted once already.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator

from channels.backends.memory.engine import Demand, MemoryEngine, Taker, envelope_octets
from channels.exceptions import ChannelFull
from channels.kit.clock import Clock
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope


class Held:
    """One envelope that is held; `reader` has it on lease, or None."""

    __slots__ = ("due", "envelope", "is_delayed", "queue", "reader")

    def __init__(self, queue: str, envelope: Envelope, due: float, reader: object = None) -> None:
        self.queue = queue
        self.envelope = envelope
        #: Monotonic seconds.
        self.due = due
        self.reader = reader
        #: It was never in its queue.
        self.is_delayed = False

    def count(self) -> None:
        """The lease was an attempt.  A copy: it may be in several queues."""
        self.envelope = self.envelope.again(self.envelope.attempts + 1)


class Holder:
    """Delays and leases for the queues of one engine, under its lock.

    Whoever owns it calls `tick` at the time that `on_due` was told last.

    Args:
        on_due: Told, in monotonic seconds, when something becomes due.
    """

    def __init__(
        self,
        engine: MemoryEngine,
        clock: Clock,
        on_due: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.engine = engine
        engine.lease_out = self._lease_out
        self.on_due = on_due
        self._clock = clock
        self._boot = os.urandom(8)
        self._numbers = itertools.count(1)
        self._held: dict[bytes, Held] = {}
        #: (due, token), with entries of what is held no more, or until another time.
        self._heap: list[tuple[float, bytes]] = []
        self._delayed = 0
        #: Leases that ran out.
        self.run_out = 0

    def delay(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """Hold an envelope until `due`; as `DelayedQueue.push_later`.

        Raises:
            ChannelFull: If `bound` are held already.
        """
        with self.engine.lock:
            if self._delayed >= bound:
                raise ChannelFull(
                    f"{self._delayed} delayed messages are pending already (max_delayed)."
                )
            self.engine.take_room(queue, envelope)
            held = Held(queue, envelope, due)
            held.is_delayed = True
            self._delayed += 1
            self._hold(self._token(), held)

    def demand(self, reader: object, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """Lease so many to a reader from now on; as `WorkQueue.demand`."""
        with self.engine.lock:
            self.tick()
            self.engine.demand(reader, queue, Demand(count, seconds, taker))

    def _lease_out(self, queue: str, envelope: Envelope, reader: object, demand: Demand) -> None:
        token = self._token()
        self._hold(token, Held(queue, envelope, self._clock.monotonic() + demand.seconds, reader))
        demand.taker(Leased(queue, envelope, token, envelope.attempts + 1))

    def acknowledge(self, token: bytes) -> bool:
        """Forget what is on this lease; False if the lease is over."""
        with self.engine.lock:
            held = self._held.get(token)
            if held is None or held.reader is None:
                return False
            del self._held[token]
            self.engine.octets -= envelope_octets(held.envelope)
            self._compact()
            return True

    def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """End a lease: back to the head of the queue after `delay` seconds."""
        with self.engine.lock:
            held = self._held.get(token)
            if held is None or held.reader is None:
                return False
            del self._held[token]
            if counted:
                held.count()
            held.reader = None
            if delay <= 0:
                self.engine.put_back(held.queue, [held.envelope])
            else:
                held.due = self._clock.monotonic() + delay
                # Under a new token: this one is void.
                self._hold(self._token(), held)
            return True

    def extend(self, token: bytes, seconds: float) -> bool:
        """Let a lease run for so long from now on."""
        with self.engine.lock:
            held = self._held.get(token)
            if held is None or held.reader is None:
                return False
            held.due = self._clock.monotonic() + seconds
            self._hold(token, held)
            return True

    def forget_reader(self, reader: object, successor: object = None) -> None:
        """It has gone: what it had on lease goes back at once, or is its successor's."""
        with self.engine.lock:
            self.engine.forget_reader(reader)
            returned: dict[str, list[Envelope]] = {}
            for token, held in list(self._held.items()):
                if held.reader is not reader:
                    continue
                if successor is not None:
                    held.reader = successor
                else:
                    self.run_out += 1
                    del self._held[token]
                    held.count()
                    returned.setdefault(held.queue, []).append(held.envelope)
            for queue, envelopes in returned.items():
                self.engine.put_back(queue, envelopes)

    def tick(self) -> float | None:
        """Put what is due into its queue; returns when the next is, in monotonic seconds."""
        with self.engine.lock:
            now = self._clock.monotonic()
            delayed: list[Held] = []
            returned: dict[str, list[Envelope]] = {}
            while self._heap and self._heap[0][0] <= now:
                due, token = heapq.heappop(self._heap)
                held = self._held.get(token)
                if held is None or held.due != due:
                    continue
                del self._held[token]
                if held.is_delayed:
                    self._delayed -= 1
                    delayed.append(held)
                    continue
                if held.reader is not None:
                    self.run_out += 1
                    held.count()
                returned.setdefault(held.queue, []).append(held.envelope)
            # Readers may wait: those that were in the queue before come first.
            for queue, envelopes in returned.items():
                self.engine.put_back(queue, envelopes)
            for held in delayed:
                self.engine.put_back(held.queue, [held.envelope], at_end=True)
            return self._heap[0][0] if self._heap else None

    def entries(self) -> Iterator[tuple[bytes, Held, float]]:
        """(token, what is held, when it is due), for another holder on this machine."""
        for token, held in self._held.items():
            yield token, held, held.due

    def restore(self, token: bytes, held: Held, due: float) -> None:
        """Take over what another holder held; `due` as it told."""
        held.due = due
        self.engine.octets += envelope_octets(held.envelope)
        self._delayed += held.is_delayed
        self._hold(token, held)

    def clear(self) -> None:
        """Forget all that is held; readers go on waiting."""
        with self.engine.lock:
            self.engine.octets -= sum(
                envelope_octets(held.envelope) for held in self._held.values()
            )
            self._held.clear()
            self._heap.clear()
            self._delayed = 0

    def statistics(self) -> dict[str, int]:
        with self.engine.lock:
            leased = sum(held.reader is not None for held in self._held.values())
            return {"delayed": self._delayed, "leased": leased, "leases_run_out": self.run_out}

    # Inside.

    def _token(self) -> bytes:
        return self._boot + next(self._numbers).to_bytes(8, "big")

    def _hold(self, token: bytes, held: Held) -> None:
        is_first = not self._heap or held.due < self._heap[0][0]
        self._held[token] = held
        heapq.heappush(self._heap, (held.due, token))
        if is_first:
            self.on_due(held.due)

    def _compact(self) -> None:
        """Leases that end early leave their place in the heap behind; do not let these grow."""
        if len(self._heap) > 2 * len(self._held) + 64:
            self._heap = [(held.due, token) for token, held in self._held.items()]
            heapq.heapify(self._heap)
