"""Queues and groups of queues in memory: what a broker does, without one.

The in-memory layer calls it directly; the hub of the local layer serves it to other processes.  It
knows no loop and does no I/O.  One lock; readers are called under it and must not wait.

An envelope is unread in its queue, or held: delayed, on lease, or released for later.  A delayed
one enters the queue at its end, as if it had been sent just then; one whose lease ended enters at
the head, where it came from.  Neither counts against the queue's capacity then: it was accepted
once already.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from channels.backends.memory.queue import Demand, Held, Queue, envelope_octets
from channels.exceptions import ChannelFull
from channels.kit.clock import Clock
from channels.layers.contract import Backlog, Leased
from channels.layers.envelope import Envelope

#: A queue that is made beside so many is a reason to look for expired ones.
_MANY_QUEUES: Final = 100


class MemoryEngine:
    """Queues with capacity, expiry, delays and leases, and groups of queues.

    Whoever owns it calls `tick` at the time that `on_due` was told last.  Beyond a bound there is
    `ChannelFull`.

    Args:
        sweep_seconds: How often, at most, all queues are looked through for what has expired.
        max_octets: What unread and held envelopes may take.
        max_memberships: Queues in groups, counted once for each group.
    """

    def __init__(
        self,
        clock: Clock,
        sweep_seconds: Callable[[], float] = lambda: 15.0,
        *,
        max_octets: float = math.inf,
        max_queues: float = math.inf,
        max_memberships: float = math.inf,
    ) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, Queue] = {}
        #: By token: what names its lease, or, without one, it alone.
        self.held: dict[bytes, Held] = {}
        #: Group -> queue -> when its membership ends; oldest first.
        self.groups: dict[str, dict[str, float]] = {}
        #: What the unread and held envelopes take.
        self.octets = 0
        self.expired = 0
        #: Told, in monotonic seconds, when something becomes due.
        self.on_due: Callable[[float], None] = lambda _: None
        self._max_octets = max_octets
        self._max_queues = max_queues
        self._max_memberships = max_memberships
        self._memberships = 0
        self._delayed = 0
        self._leases_run_out = 0
        #: (due, token), with entries of what is held no more, or until another time.
        self._heap: list[tuple[float, bytes]] = []
        self._boot = os.urandom(8)
        self._numbers = itertools.count(1)
        self._clock = clock
        self._sweep_seconds = sweep_seconds
        self._sweep_at = -math.inf

    # Queues.

    def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        """Append an envelope, or lease it to who waits.

        Raises:
            ChannelFull: If `capacity` unread ones are there, or the engine is at a bound.
        """
        with self.lock:
            self._require_room(queue, envelope)
            entry = self._queue(queue)
            if len(entry.envelopes) >= capacity:
                self._drop_expired(entry)
                if len(entry.envelopes) >= capacity:
                    raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")
            self.octets += envelope_octets(envelope)
            entry.envelopes.append(envelope)
            self._serve(queue, entry)

    def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """Hold an envelope until `due`; as `DelayedQueue.push_later`.

        Raises:
            ChannelFull: If `bound` are held already, or the engine is at a bound.
        """
        with self.lock:
            if self._delayed >= bound:
                raise ChannelFull(
                    f"{self._delayed} delayed messages are pending already (max_delayed)."
                )
            self._require_room(queue, envelope)
            self.octets += envelope_octets(envelope)
            self.hold(self._token(), Held(queue, envelope, due, is_delayed=True))

    def put_back(self, queue: str, envelopes: Sequence[Envelope], *, at_end: bool = False) -> None:
        """Put envelopes at the head, or at the end, in their order, whatever the bounds.

        They were accepted before, and have taken their room.
        """
        with self.lock:
            entry = self.queues.setdefault(queue, Queue())
            if at_end:
                entry.envelopes.extend(envelopes)
            else:
                entry.envelopes.extendleft(reversed(envelopes))
            self._serve(queue, entry)

    def demand(self, reader: object, queue: str, demand: Demand) -> None:
        """Lease to a reader as it demands from now on, instead of what it demanded before.

        Raises:
            ChannelFull: If this would be one queue more than the bound.
        """
        with self.lock:
            self.tick()
            self.sweep()
            entry = self._queue(queue)
            if demand.count > 0:
                entry.demands[reader] = demand
            else:
                entry.demands.pop(reader, None)
            self._serve(queue, entry)

    def backlog(self, queue: str) -> Backlog:
        """As `WorkQueue.backlog`."""
        with self.lock:
            entry = self.queues.get(queue) or Queue()
            self._drop_expired(entry)
            waiting = entry.envelopes
            return Backlog(len(waiting), waiting[0].deadline if waiting else None)

    def forget_reader(self, reader: object, successor: object = None) -> None:
        """It has gone: what it had on lease goes back at once, or is its successor's."""
        with self.lock:
            for queue, entry in list(self.queues.items()):
                entry.demands.pop(reader, None)
                self._tidy(queue, entry)
            now = self._clock.monotonic()
            for token, held in list(self.held.items()):
                if held.reader is not reader:
                    continue
                if successor is None:
                    held.due = now
                    self.hold(token, held)
                else:
                    held.reader = successor
            self.tick()

    def discard_unread(self, queue: str) -> None:
        """Forget the unread envelopes of a queue."""
        with self.lock:
            if (entry := self.queues.get(queue)) is not None:
                self.octets -= sum(map(envelope_octets, entry.envelopes))
                entry.envelopes.clear()
                self._tidy(queue, entry)

    # Leases.

    def acknowledge(self, token: bytes) -> bool:
        """Forget what is on this lease; False if the lease is over."""
        with self.lock:
            held = self._end_lease(token)
            if held is None:
                return False
            self.octets -= envelope_octets(held.envelope)
            if len(self._heap) > 2 * len(self.held) + 64:
                # Leases that end early leave their place behind; do not let these grow.
                self._heap = [(held.due, token) for token, held in self.held.items()]
                heapq.heapify(self._heap)
            return True

    def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """End a lease: back to the head of the queue after `delay` seconds; False as above."""
        with self.lock:
            held = self._end_lease(token)
            if held is None:
                return False
            if counted:
                held.count_attempt()
            if delay > 0:
                held.reader, held.due = None, self._clock.monotonic() + delay
                # Under a new token: this one is void.
                self.hold(self._token(), held)
            else:
                self.put_back(held.queue, [held.envelope])
            return True

    def extend(self, token: bytes, seconds: float) -> bool:
        """Let a lease run for so long from now on; False as above."""
        with self.lock:
            held = self._end_lease(token)
            if held is None:
                return False
            held.due = self._clock.monotonic() + seconds
            self.hold(token, held)
            return True

    def tick(self) -> float | None:
        """Put what is due into its queue; returns when the next is, in monotonic seconds."""
        if not self._heap:
            return None
        with self.lock:
            now = self._clock.monotonic()
            delayed: list[Held] = []
            returned: dict[str, list[Envelope]] = {}
            while self._heap and self._heap[0][0] <= now:
                due, token = heapq.heappop(self._heap)
                held = self.held.get(token)
                if held is None or held.due != due:
                    continue
                del self.held[token]
                if held.is_delayed:
                    self._delayed -= 1
                    delayed.append(held)
                    continue
                if held.reader is not None:
                    self._leases_run_out += 1
                    held.count_attempt()
                returned.setdefault(held.queue, []).append(held.envelope)
            # Readers may wait: those that were in the queue before come first.
            for queue, envelopes in returned.items():
                self.put_back(queue, envelopes)
            for held in delayed:
                self.put_back(held.queue, [held.envelope], at_end=True)
            return self._heap[0][0] if self._heap else None

    def hold(self, token: bytes, held: Held) -> None:
        """Hold an envelope that has taken its room."""
        is_first = not self._heap or held.due < self._heap[0][0]
        self._delayed += held.is_delayed
        self.held[token] = held
        heapq.heappush(self._heap, (held.due, token))
        if is_first:
            self.on_due(held.due)

    # Groups.

    def add(self, group: str, queue: str, expires: float) -> None:
        """Make a queue a member of a group until `expires`; again: until then.

        Raises:
            ChannelFull: If this would be one membership more than the bound.
        """
        with self.lock:
            self.discard(group, queue)
            if self._memberships >= self._max_memberships:
                raise ChannelFull(f"Groups have {self._memberships} queues as members already.")
            if (entry := self.queues.get(queue)) is not None:
                # Who joins lives: what expired before must not take it out of the group again.
                self._drop_expired(entry)
            self.groups.setdefault(group, {})[queue] = expires
            self._memberships += 1

    def discard(self, group: str, queue: str) -> None:
        """Take a queue out of a group."""
        with self.lock:
            members = self.groups.get(group, {})
            if members.pop(queue, None) is not None:
                self._memberships -= 1
                if not members:
                    del self.groups[group]

    def publish(
        self, group: str, envelope: Envelope, capacity_of: Callable[[str], int]
    ) -> tuple[int, int]:
        """Append an envelope to each queue of a group: (how many were full, how many there are)."""
        with self.lock:
            self.sweep()
            members = self._members(group)
            full = 0
            for queue in members:
                try:
                    self.push(queue, envelope, capacity_of(queue))
                except ChannelFull:
                    full += 1
            return full, len(members)

    # All of it.

    def flush(self) -> None:
        """Forget all envelopes and groups; readers go on waiting."""
        with self.lock:
            self.held.clear()
            self._heap.clear()
            self.groups.clear()
            self.octets = self._delayed = self._memberships = 0
            for queue, entry in list(self.queues.items()):
                entry.envelopes.clear()
                self._tidy(queue, entry)

    def sweep(self, at_once: bool = False) -> None:
        """Drop what has expired unread, if it is time or `at_once`; such a queue leaves its groups.

        Nobody reads it, so it shall not fill again.  Memberships that have expired end.
        """
        now = self._clock.monotonic()
        if now < self._sweep_at and not at_once:
            return
        self._sweep_at = now + self._sweep_seconds()
        deserted = set()
        for queue, entry in list(self.queues.items()):
            if self._drop_expired(entry):
                deserted.add(queue)
            self._tidy(queue, entry)
        for group in list(self.groups):
            for queue in deserted.intersection(self.groups[group]):
                self.discard(group, queue)
            self._members(group)

    def statistics(self) -> dict[str, int]:
        """Sizes now, and counters since it was made."""
        with self.lock:
            return {
                "expired": self.expired,
                "queues": len(self.queues),
                "queued": sum(len(entry.envelopes) for entry in self.queues.values()),
                "queued_octets": self.octets,
                "delayed": self._delayed,
                "leased": sum(held.reader is not None for held in self.held.values()),
                "leases_run_out": self._leases_run_out,
            }

    # Inside.

    def _require_room(self, queue: str, envelope: Envelope) -> None:
        size = envelope_octets(envelope)
        if self.octets + size > self._max_octets:
            raise ChannelFull(
                f"All queues together hold {self.octets} octets of unread messages: no room for "
                f"{size} more in {queue}."
            )

    def _queue(self, queue: str) -> Queue:
        entry = self.queues.get(queue)
        if entry is None:
            if len(self.queues) >= _MANY_QUEUES:
                self.sweep()
            if len(self.queues) >= self._max_queues:
                raise ChannelFull(
                    f"There are {len(self.queues)} queues already: no room for {queue}."
                )
            entry = self.queues[queue] = Queue()
        return entry

    def _serve(self, queue: str, entry: Queue) -> None:
        """Lease out as long as there is something and someone."""
        while entry.envelopes and entry.demands:
            if self._drop_expired(entry):
                continue
            envelope = entry.envelopes.popleft()
            reader, demand = entry.demands.popitem(last=False)
            demand.count -= 1
            if demand.count > 0:
                # To the end of the line: readers are served in turn.
                entry.demands[reader] = demand
            token = self._token()
            due = self._clock.monotonic() + demand.seconds
            self.hold(token, Held(queue, envelope, due, reader))
            demand.taker(Leased(queue, envelope, token, envelope.attempts + 1))
        self._tidy(queue, entry)

    def _drop_expired(self, entry: Queue) -> int:
        """Drop expired envelopes from the head; returns how many."""
        now, dropped = self._clock.monotonic(), 0
        while entry.envelopes and entry.envelopes[0].is_expired(now):
            self.octets -= envelope_octets(entry.envelopes.popleft())
            dropped += 1
        self.expired += dropped
        return dropped

    def _tidy(self, queue: str, entry: Queue) -> None:
        if not entry.envelopes and not entry.demands and self.queues.get(queue) is entry:
            del self.queues[queue]

    def _members(self, group: str) -> list[str]:
        """The queues of a group; those whose time has ended leave it."""
        members, now = self.groups.get(group, {}), self._clock.monotonic()
        for queue in list(itertools.takewhile(lambda queue: members[queue] <= now, members)):
            self.discard(group, queue)
        return list(members)

    def _token(self) -> bytes:
        return self._boot + next(self._numbers).to_bytes(8, "big")

    def _end_lease(self, token: bytes) -> Held | None:
        """Take what is on this lease; None if the lease is over."""
        held = self.held.get(token)
        return None if held is None or held.reader is None else self.held.pop(token)
