"""The members of this process: which channel is whom, who is in which group, and their delivery.

Registration may happen on any thread, under one lock.  Delivery happens on each member's own loop,
through that loop's `Round`; members of other loops are reached by posting there.  A group keeps its
members as ready tuples, one per loop, rebuilt only after a change.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from channels.exceptions import ClientLimitExceeded
from channels.fanout.delivery import (
    Event,
    EventDelivery,
    Loop,
    Member,
    Round,
    deliver,
    running_loop,
)
from channels.kit.throttle import Throttle, and_more

logger = logging.getLogger("channels.layers")

#: Deliveries that may wait on the running loop before a sender in this process waits for them.
_BACKLOG: Final = 64
#: One line in so many seconds on groups with full members.
_LOG_SECONDS: Final = 5.0
#: What the statistics count, also if it is nothing.
_COUNTED: Final = (
    "delivered",
    "delivered_as_frames",
    "dropped_full",
    "dropped_displaced",
    "dropped_unread",
    "expired",
    "dropped_failed",
    "dropped_backlog",
)


@dataclass(slots=True, eq=False)
class Group:
    """The members of a group in this process."""

    members: dict[str, Member] = field(default_factory=dict)
    #: Channel -> when it was added last, by the hub's clock.
    added: dict[str, float] = field(default_factory=dict)
    #: What `ready` gave, until a member comes or goes.
    known: tuple[tuple[Loop | None, tuple[Member, ...]], ...] | None = None

    def put(self, channel: str, member: Member, now: float) -> None:
        """Add a member, or refresh it."""
        if self.members.get(channel) is not member:
            self.members[channel] = member
            self.known = None
        self.added[channel] = now

    def drop(self, channel: str) -> None:
        if self.members.pop(channel, None) is not None:
            del self.added[channel]
            self.known = None

    def ready(self) -> tuple[tuple[Loop | None, tuple[Member, ...]], ...]:
        """The members by loop, in the order of joining.  Under the hub's lock."""
        ready = self.known
        if ready is None:
            by_loop: dict[Loop | None, list[Member]] = {}
            for member in self.members.values():
                by_loop.setdefault(member.loop, []).append(member)
            ready = self.known = tuple((loop, tuple(some)) for loop, some in by_loop.items())
        return ready


class Hub:
    """Channels and groups of one process.

    Args:
        lock: Guards all registration; shared with whoever registers together with other steps.
    """

    def __init__(
        self,
        *,
        lock: threading.RLock | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = lock or threading.RLock()
        self.channels: dict[str, Member] = {}
        self.groups: dict[str, Group] = {}
        self._groups_of: dict[str, set[str]] = {}
        self._rounds: dict[Loop, Round] = {}
        #: Called with a group's name when its last member has gone; under the lock, on the thread
        #: of whoever took it out.
        self.on_emptied: Callable[[str], None] = lambda _: None
        self._clock = clock
        self._log = Throttle(_LOG_SECONDS, clock)
        #: Told of a group some of whose members were full.
        self.on_full: Callable[[str], None] = lambda _: None
        #: Of what was delivered off any loop, and of members and loops that are gone.
        self._counts: Counter[str] = Counter()

    # Registration.

    def attach(self, channel: str, member: Member) -> None:
        """Make a member reachable under a channel's name; memberships of that name stay."""
        with self.lock:
            former = self.channels.get(channel)
            if former is not None and former.mailbox is not member.mailbox:
                _count_mailbox(self._counts, former)
            self.channels[channel] = member
            if member.loop is not None and member.loop not in self._rounds:
                self._rounds[member.loop] = Round(member.loop, self._note_full, self._clock)
            for name in self._groups_of.get(channel, ()):
                group = self.groups[name]
                group.put(channel, member, group.added[channel])

    def detach(self, channel: str) -> Member | None:
        """Forget a channel and its memberships; returns the member it had."""
        with self.lock:
            member = self.channels.pop(channel, None)
            if member is not None:
                _count_mailbox(self._counts, member)
                self._counts["dropped_unread"] += member.mailbox.layer_size
            for name in list(self._groups_of.get(channel, ())):
                self.discard(name, channel)
            return member

    def add(self, group: str, channel: str) -> None:
        """Make an attached channel a member of a group, or refresh its membership.

        Raises:
            KeyError: If the channel is not attached.
            ClientLimitExceeded: If it is a member of as many groups as it may be.
        """
        with self.lock:
            member = self.channels[channel]
            if member.most_groups is not None:
                joined = self._groups_of.get(channel, ())
                if len(joined) >= member.most_groups and group not in joined:
                    raise ClientLimitExceeded("groups", f"in {len(joined)} groups, asked for more")
            self.groups.setdefault(group, Group()).put(channel, member, self._clock())
            self._groups_of.setdefault(channel, set()).add(group)

    def discard(self, group: str, channel: str) -> bool:
        """Take a channel out of a group; False if it was no member."""
        with self.lock:
            entry = self.groups.get(group)
            if entry is None or channel not in entry.members:
                return False
            entry.drop(channel)
            names = self._groups_of[channel]
            names.discard(group)
            if not names:
                del self._groups_of[channel]
            if not entry.members:
                del self.groups[group]
                self.on_emptied(group)
            return True

    def is_member(self, channel: str) -> bool:
        """True if a channel is in any group.  Any thread may ask."""
        return channel in self._groups_of

    def groups_of(self, channel: str) -> frozenset[str]:
        """The groups that a channel is a member of."""
        with self.lock:
            return frozenset(self._groups_of.get(channel, ()))

    def forget_groups(self) -> None:
        """Empty every group; channels stay attached."""
        with self.lock:
            emptied = list(self.groups)
            self.groups.clear()
            self._groups_of.clear()
            for group in emptied:
                self.on_emptied(group)

    def drop_closed_loops(self) -> None:
        """Detach the members of all loops that are closed."""
        with self.lock:
            for loop in [loop for loop in self._rounds if loop.is_closed()]:
                for channel, member in list(self.channels.items()):
                    if member.loop is loop:
                        self.detach(channel)
                self._counts.update(self._rounds.pop(loop).counts)

    # Delivery.

    def publish(self, group: str, event: Event) -> None:
        """Deliver an event to the members that a group has now, each at most once.

        Returns when the first slice on this loop is served; `backlog` tells of the rest.
        """
        entry = self.groups.get(group)
        if entry is None:
            return
        ready = entry.known
        if ready is None:
            with self.lock:
                ready = entry.ready()
        for loop, members in ready:
            self._reach(loop, EventDelivery(group, event, members))

    def deliver(self, channel: str, event: Event) -> bool | None:
        """Deliver an event to one channel.

        Returns:
            True if it was taken, False if the channel is full or its loop has gone, None if that
            shows only later, because it is behind other deliveries or on another loop.

        Raises:
            KeyError: If the channel is not attached.
        """
        member = self.channels[channel]
        delivery = EventDelivery(channel, event, (member,), is_group=False)
        if not self._reach(member.loop, delivery):
            return False
        return delivery.full == 0 if delivery.reached else None

    def backlog(self) -> int:
        """How many deliveries wait for their turn on the running loop."""
        mine = self._rounds.get(running) if (running := running_loop()) is not None else None
        return len(mine) if mine is not None else 0

    async def give_way(self) -> None:
        """Let members run: a loop of sends, which nothing else suspends, must not overrun them."""
        await asyncio.sleep(0)
        while self.backlog() > _BACKLOG:  # noqa: ASYNC110 - the loop's own turns count
            await asyncio.sleep(0)

    def _reach(self, loop: Loop | None, delivery: EventDelivery) -> bool:
        if loop is None:
            # Mailboxes that any thread may fill: no loop to be fair to.
            with self.lock:
                deliver(delivery, len(delivery.members), self._counts)
            if delivery.full:
                self._note_full(delivery)
            return True
        mine = self._rounds.get(loop)
        if mine is None:
            return False
        if mine.submit(delivery):
            return True
        self.drop_closed_loops()
        return False

    def _note_full(self, delivery: EventDelivery) -> None:
        if delivery.is_group:
            self.report_full(delivery.name, delivery.full, len(delivery.members))
            self.on_full(delivery.name)

    def report_full(self, group: str, full: int, members: int) -> None:
        """Log that members of a group were full, at most once in five seconds."""
        held_back = self._log.admit("over capacity")
        if held_back is not None:
            more = and_more(held_back)
            logger.info("%s of %s channels over capacity in group %s%s", full, members, group, more)

    def statistics(self) -> dict[str, int]:
        """What deliveries came to since the hub was made."""
        with self.lock:
            total = Counter(dict.fromkeys(_COUNTED, 0))
            total.update(self._counts)
            for mine in self._rounds.values():
                # Copied in one step: that loop's thread counts on.
                total.update(dict(mine.counts))
            for member in self.channels.values():
                _count_mailbox(total, member)
            return {
                **total,
                "waiting": sum(each.mailbox.layer_size for each in self.channels.values()),
                "local_channels": len(self.channels),
                "local_groups": len(self.groups),
            }


def _count_mailbox(counts: Counter[str], member: Member) -> None:
    """Add what a member's mailbox has dropped after it had taken it in."""
    counts["dropped_displaced"] += member.mailbox.displaced
    counts["expired"] += member.mailbox.expired
