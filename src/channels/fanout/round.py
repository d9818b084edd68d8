"""Deliveries on one loop: in order, in slices, so that a large group does not stop the loop.

Deliveries of one loop keep the order in which they were submitted, over all groups and channels:
whoever sends to a channel and then to a group it is in reaches it in that order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from channels.fanout.event import Event
from channels.fanout.member import Member

logger = logging.getLogger("channels.layers")

#: A slice ends after so many members or so many seconds; the loop then serves others.
SLICE_MEMBERS: Final = 1000
SLICE_SECONDS: Final = 0.002
#: How many members are served between two looks at the clock.
_STRIDE: Final = 100
#: Deliveries that may wait for their turn on one loop; more are dropped and counted.
MAX_WAITING: Final = 10_000
_LOG_SECONDS: Final = 5.0


class EventDelivery:
    """One event to the members of a group, or to one channel, and how far it has come."""

    __slots__ = ("event", "full", "is_group", "members", "name", "reached")

    def __init__(
        self, name: str, event: Event, members: Sequence[Member], *, is_group: bool = True
    ) -> None:
        self.name = name
        self.is_group = is_group
        self.event = event
        self.members = members
        self.reached = 0
        #: Members that were passed over because they were full.
        self.full = 0


class Tally:
    """What deliveries came to, for the statistics."""

    __slots__ = (
        "delivered",
        "displaced",
        "expired",
        "failed",
        "full",
        "sunk",
        "turned_away",
        "unread",
    )

    def __init__(self) -> None:
        #: Events put into a mailbox.
        self.delivered = 0
        #: Frames written straight to a sink.
        self.sunk = 0
        #: Dropped because the member was full.
        self.full = 0
        #: Dropped because the member's sink or mailbox raised.
        self.failed = 0
        #: Dropped because too many deliveries waited on the loop.
        self.turned_away = 0
        #: Taken in by mailboxes that are gone: made room for later ones, expired there, and waited
        #: when the member was detached.
        self.displaced = 0
        self.expired = 0
        self.unread = 0


def deliver(delivery: EventDelivery, stop: int, tally: Tally) -> None:
    """Serve the members from `delivery.reached` up to `stop`; no error of theirs leaves."""
    event, first = delivery.event, delivery.reached
    message, size, deadline, prepared = event.message, event.size, event.deadline, event.prepared
    whole = first == 0 and stop == len(delivery.members)
    members = delivery.members if whole else delivery.members[first:stop]
    full = sunk = failed = 0
    for member in members:
        try:
            if (
                prepared is not None
                and (sink := member.sink) is not None
                and (form := sink.form) is not None
                and member.mailbox.layer_is_clear
            ):
                sink.write(prepared.frame(form))
                sunk += 1
            elif not member.mailbox.put_layer(message, size, deadline):
                full += 1
        except Exception:
            failed += 1
            if failed == 1:
                logger.exception("A member of %s could not be reached", delivery.name)
    delivery.reached = stop
    delivery.full += full
    tally.full += full
    tally.failed += failed
    tally.sunk += sunk
    tally.delivered += len(members) - full - sunk - failed


class Round:
    """The deliveries of one loop; `submit` is called on that loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_full: Callable[[EventDelivery], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self._loop = loop
        self._on_full = on_full
        self._clock = clock
        self._waiting: deque[EventDelivery] = deque()

    def __len__(self) -> int:
        """How many deliveries are not complete."""
        return len(self._waiting)

    def submit(self, delivery: EventDelivery) -> bool:
        """Deliver now as far as a slice goes, the rest in later turns; False if dropped."""
        if not self._waiting:
            if len(delivery.members) <= _STRIDE:
                deliver(delivery, len(delivery.members), self.tally)
            elif not self._advance(delivery):
                self._waiting.append(delivery)
                self._loop.call_soon(self._go_on)
                return True
            if delivery.full:
                self._on_full(delivery)
            return True
        if len(self._waiting) >= MAX_WAITING:
            self.tally.turned_away += len(delivery.members)
            return False
        self._waiting.append(delivery)
        return True

    def _advance(self, delivery: EventDelivery, budget: int = SLICE_MEMBERS) -> bool:
        """Serve one slice of a delivery; True if it is complete."""
        members = len(delivery.members)
        if members - delivery.reached <= _STRIDE:
            deliver(delivery, members, self.tally)
            return True
        until = self._clock() + SLICE_SECONDS
        last = min(members, delivery.reached + budget)
        while delivery.reached < last:
            deliver(delivery, min(last, delivery.reached + _STRIDE), self.tally)
            if self._clock() >= until:
                break
        return delivery.reached >= members

    def _go_on(self) -> None:
        """One slice of what waits, small deliveries together."""
        until = self._clock() + SLICE_SECONDS
        budget = SLICE_MEMBERS
        while self._waiting and budget > 0:
            delivery = self._waiting[0]
            before = delivery.reached
            complete = self._advance(delivery, budget)
            budget -= max(1, delivery.reached - before)
            if complete:
                self._waiting.popleft()
                if delivery.full:
                    self._on_full(delivery)
            if self._clock() >= until:
                break
        if self._waiting:
            self._loop.call_soon(self._go_on)


class OverCapacityLog:
    """One line per five seconds on members that were full, whatever the rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = float("-inf")
        self._unsaid = 0

    def report(self, group: str, full: int, members: int) -> None:
        """Say it, or count it for the next line."""
        now = self._clock()
        if now < self._next:
            self._unsaid += 1
            return
        self._next = now + _LOG_SECONDS
        logger.info("%s of %s channels over capacity in group %s", full, members, group)
        if self._unsaid:
            logger.info("... and in %s earlier sends that were not logged", self._unsaid)
            self._unsaid = 0
