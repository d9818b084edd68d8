"""Queues and groups in memory: what a broker does, without one.

The in-memory layer calls it directly; the hub of the local layer serves it to other processes.  It
knows no loop and does no I/O.  One lock; readers are called under it and must not wait.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from channels.exceptions import ChannelFull
from channels.kit.clock import Clock
from channels.layers.contract import Backlog, Leased
from channels.layers.envelope import Envelope

#: Told of a message that was leased out; under the engine's lock.
Taker = Callable[[Leased], None]

#: Octets that an unread envelope takes beside its payload: 272 by tracemalloc, and the rounding up.
ENVELOPE_OCTETS: Final = 400


@dataclass(frozen=True, slots=True)
class EngineBounds:
    """What an engine may hold; None: as much as it is given."""

    octets: int | None = None
    queues: int | None = None
    #: Queues in groups, counted once for each group.
    memberships: int | None = None


@dataclass(slots=True)
class Demand:
    """How many a reader takes, for how long each is leased, and who is told of it."""

    count: int
    seconds: float
    taker: Taker


class Queue:
    """The unread envelopes of one channel and who waits for more."""

    __slots__ = ("demands", "envelopes")

    def __init__(self) -> None:
        self.envelopes: deque[Envelope] = deque()
        #: By reader; served in turn.
        self.demands: OrderedDict[object, Demand] = OrderedDict()


class MemoryEngine:
    """Queues with capacity and expiry, and groups of queues.

    Args:
        sweep_seconds: How often, at most, all queues are looked through for what has expired.
        bounds: Beyond them there is `ChannelFull`.
    """

    def __init__(
        self,
        clock: Clock,
        sweep_seconds: Callable[[], float] = lambda: 15.0,
        bounds: EngineBounds = EngineBounds(),
    ) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, Queue] = {}
        #: Group -> queue -> when its membership ends; oldest first.
        self.groups: dict[str, dict[str, float]] = {}
        self.expired = 0
        #: Leases an envelope out, which keeps its room: (queue, envelope, reader, demand).
        self.lease_out: Callable[[str, Envelope, object, Demand], None] = lambda *_: None
        #: What the unread envelopes take.
        self.octets = 0
        self._bounds = bounds
        #: At least as many as there are memberships; counted anew at the bound.
        self._memberships = 0
        self._clock = clock
        self._sweep_seconds = sweep_seconds
        self._sweep_at = float("-inf")

    def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        """Append an envelope, or hand it to who waits.

        Raises:
            ChannelFull: If `capacity` unread ones are there, or the engine is at a bound.
        """
        with self.lock:
            entry = self._queue(queue)
            if len(entry.envelopes) >= capacity:
                self._drop_expired(entry)
                if len(entry.envelopes) >= capacity:
                    raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")
            try:
                self.take_room(queue, envelope)
            except ChannelFull:
                self._tidy(queue, entry)
                raise
            entry.envelopes.append(envelope)
            self._serve(queue, entry)

    def take_room(self, queue: str, envelope: Envelope) -> None:
        """Count an envelope that is kept for a queue.

        Raises:
            ChannelFull: If there is no room for it.
        """
        size = envelope_octets(envelope)
        if self._bounds.octets is not None and self.octets + size > self._bounds.octets:
            raise ChannelFull(
                f"All queues together hold {self.octets} octets of unread messages: no room for "
                f"{size} more in {queue}."
            )
        self.octets += size

    def put_back(self, queue: str, envelopes: Sequence[Envelope], *, at_end: bool = False) -> None:
        """Put envelopes back at the head, or at the end, in their order, whatever the bounds.

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
            entry = self.queues.get(queue)
            if entry is None or not entry.envelopes:
                return Backlog(0)
            self._drop_expired(entry)
            waiting = len(entry.envelopes)
            return Backlog(waiting, entry.envelopes[0].deadline if waiting else None)

    def forget_reader(self, reader: object) -> None:
        """It has gone."""
        with self.lock:
            for queue, entry in list(self.queues.items()):
                entry.demands.pop(reader, None)
                self._tidy(queue, entry)

    def add(self, group: str, queue: str, expires: float) -> None:
        """Make a queue a member of a group until `expires`; again: until then.

        Raises:
            ChannelFull: If this would be one membership more than the bound.
        """
        with self.lock:
            self._check_memberships()
            if (entry := self.queues.get(queue)) is not None:
                # Who joins lives: what expired before must not take it out of the group again.
                self._drop_expired(entry)
            members = self.groups.setdefault(group, {})
            members.pop(queue, None)
            members[queue] = expires

    def discard(self, group: str, queue: str) -> None:
        """Take a queue out of a group."""
        with self.lock:
            members = self.groups.get(group)
            if members is not None:
                members.pop(queue, None)
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

    def flush(self) -> None:
        """Forget all envelopes and groups; readers go on waiting."""
        with self.lock:
            self.groups.clear()
            self.octets = 0
            for queue, entry in list(self.queues.items()):
                entry.envelopes.clear()
                self._tidy(queue, entry)

    def clear(self) -> None:
        """Forget everything, readers too."""
        with self.lock:
            self.groups.clear()
            self.queues.clear()
            self.octets = 0

    def discard_unread(self, queue: str) -> None:
        """Forget the unread envelopes of a queue."""
        with self.lock:
            entry = self.queues.get(queue)
            if entry is not None:
                self.octets -= sum(map(envelope_octets, entry.envelopes))
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
        if deserted:
            for group in list(self.groups):
                for queue in deserted & self.groups[group].keys():
                    del self.groups[group][queue]
                if not self.groups[group]:
                    del self.groups[group]
        for group in list(self.groups):
            self._members(group)

    def _members(self, group: str) -> list[str]:
        members = self.groups.get(group)
        if members is None:
            return []
        now = self._clock.monotonic()
        while members:
            queue, expires = next(iter(members.items()))
            if expires > now:
                break
            del members[queue]
        if not members:
            del self.groups[group]
        return list(members)

    def _queue(self, queue: str) -> Queue:
        entry = self.queues.get(queue)
        if entry is None:
            if self._bounds.queues is not None and len(self.queues) >= self._bounds.queues:
                raise ChannelFull(
                    f"There are {len(self.queues)} queues already: no room for {queue}."
                )
            entry = self.queues[queue] = Queue()
        return entry

    def _check_memberships(self) -> None:
        self._memberships += 1
        bound = self._bounds.memberships
        if bound is not None and self._memberships > bound:
            self._memberships = 1 + sum(len(members) for members in self.groups.values())
            if self._memberships > bound:
                raise ChannelFull(f"Groups have {bound} queues as members already.")

    def _serve(self, queue: str, entry: Queue) -> None:
        """Hand out as long as there is something and someone."""
        while entry.envelopes and entry.demands:
            envelope = entry.envelopes.popleft()
            if envelope.is_expired(self._clock.monotonic()):
                self.octets -= envelope_octets(envelope)
                self.expired += 1
                continue
            reader, demand = entry.demands.popitem(last=False)
            demand.count -= 1
            if demand.count > 0:
                # To the end of the line: readers are served in turn.
                entry.demands[reader] = demand
            self.lease_out(queue, envelope, reader, demand)
        self._tidy(queue, entry)

    def _drop_expired(self, entry: Queue) -> int:
        """Drop expired envelopes from the head; returns how many."""
        now, dropped = self._clock.monotonic(), 0
        while entry.envelopes and entry.envelopes[0].is_expired(now):
            envelope = entry.envelopes.popleft()
            self.octets -= envelope_octets(envelope)
            dropped += 1
        self.expired += dropped
        return dropped

    def _tidy(self, queue: str, entry: Queue) -> None:
        if not entry.envelopes and not entry.demands and self.queues.get(queue) is entry:
            del self.queues[queue]


def envelope_octets(envelope: Envelope) -> int:
    """What an unread envelope takes."""
    return ENVELOPE_OCTETS + len(envelope.payload)
