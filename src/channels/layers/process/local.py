"""The channels and groups of this process: attached consumers, and inboxes for `receive()`.

A channel is here if a consumer is attached under its name, or if it bears this node's mark.  One
that bears the mark and has no consumer gets an inbox when something comes for it or when it is
read.  Nobody may ever read it, so inboxes are swept: what is past its deadline goes, and a channel
whose messages expired unread leaves its groups, because its reader is gone.  An attached consumer
runs, so its memberships last.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from channels.exceptions import ChannelFull
from channels.fanout.delivery import Event, Member, post, running_loop
from channels.fanout.hub import Hub
from channels.kit.clock import Clock
from channels.kit.mailbox import DEFAULT_BOUNDS, Mailbox, MailboxBounds
from channels.kit.types import Message
from channels.layers.process.inboxes import Inbox, Policy

#: Inboxes that may exist without a reader; a message for one more is dropped.
MAX_UNREAD_INBOXES: Final = 10_000
#: Inboxes looked at in one step of a sweep.
_SWEEP_STEP: Final = 1000


class LocalChannels:
    """Registration and delivery in this process; any thread.

    Args:
        mark: How names of this node's channels end before their local part: ".node!".
    """

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        mark: str,
    ) -> None:
        self.lock = threading.RLock()
        self.hub = Hub(lock=self.lock, clock=clock.monotonic)
        self.inboxes: dict[str, Inbox] = {}
        self.policy = policy
        self.clock = clock
        self._mark = mark
        #: When `sweep` has something to do, by the clock.
        self.sweep_due = float("-inf")
        self._to_sweep: list[str] = []
        #: Messages for one more unread inbox than there may be.
        self._refused = 0

    def is_own(self, channel: str) -> bool:
        """True if the name bears this node's mark."""
        at = channel.find("!") + 1
        return at > 0 and channel.endswith(self._mark, 0, at)

    def is_here(self, channel: str) -> bool:
        """True if what is sent to this channel is delivered in this process."""
        return channel in self.hub.channels or self.is_own(channel)

    def attach(self, channel: str, member: Member) -> None:
        """Deliver to this member from now on; what waited in an inbox moves into its mailbox."""
        mailbox = member.mailbox
        if isinstance(mailbox, Mailbox) and mailbox.bounds is DEFAULT_BOUNDS:
            capacity = self.policy.get_capacity(channel)
            octets = self.policy.get_capacity_bytes(channel)
            # Where they are the same, all consumers share one object.
            if (capacity, octets) != (DEFAULT_BOUNDS.capacity, DEFAULT_BOUNDS.capacity_bytes):
                mailbox.bounds = MailboxBounds(capacity, octets)
        with self.lock:
            self.hub.drop_closed_loops()
            self.hub.attach(channel, member)
            inbox = self.inboxes.pop(channel, None)
            waiting = inbox.take_all() if inbox is not None else []
        for event, size, deadline in waiting:
            mailbox.put_layer(event, size, deadline)

    def detach(self, channel: str) -> None:
        """Forget a channel and its memberships."""
        with self.lock:
            self.hub.detach(channel)
            self.inboxes.pop(channel, None)

    def is_attached(self, channel: str) -> bool:
        """True if a consumer takes this channel's messages."""
        member = self.hub.channels.get(channel)
        return member is not None and not isinstance(member.mailbox, Inbox)

    def inbox(self, channel: str) -> Inbox:
        """The inbox of a channel, made if need be."""
        with self.lock:
            inbox = self.inboxes.get(channel)
            if inbox is None:
                inbox = self.inboxes[channel] = Inbox(
                    self.lock, self.clock.monotonic, self.policy, channel
                )
                self.hub.attach(channel, Member(inbox, None))
            return inbox

    def tidy(self, channel: str) -> None:
        """Forget an inbox that is empty and that no one reads or has in a group."""
        if self.hub.is_member(channel):
            # Without the lock: whoever takes it out of its last group tidies again.
            return
        with self.lock:
            inbox = self.inboxes.get(channel)
            if inbox is None or inbox.readers or len(inbox) or self.hub.is_member(channel):
                return
            del self.inboxes[channel]
            self.hub.detach(channel)

    def deliver(self, channel: str, event: Event) -> bool | None:
        """Deliver to a channel that is here; as `Hub.deliver`."""
        member = self.hub.channels.get(channel)
        if member is not None and not isinstance(member.mailbox, Inbox):
            return self.hub.deliver(channel, event)
        # In one step: a reader on another thread that leaves in between would take its inbox away.
        with self.lock:
            if channel not in self.hub.channels:
                if len(self.inboxes) >= MAX_UNREAD_INBOXES:
                    self._refused += 1
                    return False
                self.inbox(channel)
            return self.hub.deliver(channel, event)

    async def send(self, channel: str, event: Event, timeout_seconds: float) -> None:
        """Deliver to a channel that is here, whatever loop its consumer is on.

        Args:
            timeout_seconds: Bounds the wait for that loop, which may be busy: the event is on its
                way then, and in order.

        Raises:
            ChannelFull: If the channel holds its capacity of unread messages.
        """
        member = self.hub.channels.get(channel)
        if member is None or member.loop is None or member.loop is running_loop():
            taken = self.deliver(channel, event)
        else:
            taken = await self._deliver_on(member.loop, channel, event, timeout_seconds)
        if taken is False:
            raise ChannelFull(
                f"{channel} holds its capacity of unread messages, in number or in bytes: see the "
                "layer's options capacity and capacity_bytes. Or it has no reader, as "
                f"{MAX_UNREAD_INBOXES} other channels of this process."
            )

    async def _deliver_on(
        self, loop: asyncio.AbstractEventLoop, channel: str, event: Event, timeout_seconds: float
    ) -> bool | None:
        """Deliver on another loop, and learn what became of it."""
        taken: list[bool | None] = []
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def there() -> None:
            try:
                taken.append(self.deliver(channel, event))
            except KeyError:
                taken.append(False)
            post(told.get_loop(), told)

        if not post(loop, there):
            self.hub.drop_closed_loops()
            return False
        try:
            async with asyncio.timeout(timeout_seconds):
                await told
        except TimeoutError:
            return None
        return taken[0]

    async def receive(self, channel: str) -> Message:
        """The next message of a channel that is here.

        Cancel safety: a cancelled call takes nothing.
        """
        with self.lock:
            inbox = self.inbox(channel)
            inbox.readers += 1
        try:
            return await inbox.get()
        finally:
            with self.lock:
                inbox.readers -= 1
            self.tidy(channel)

    def add(self, group: str, channel: str) -> None:
        """Make a channel that is here a member of a group, or refresh its membership."""
        with self.lock:
            if channel not in self.hub.channels:
                self.inbox(channel)
            elif (inbox := self.inboxes.get(channel)) is not None:
                # Who joins lives: what expired before must not take it out of the group again.
                inbox.drop_expired()
            self.hub.add(group, channel)

    def discard(self, group: str, channel: str) -> None:
        """Take a channel that is here out of a group."""
        with self.lock:
            if self.hub.discard(group, channel):
                self.tidy(channel)

    def sweep(self) -> bool:
        """Drop what nobody reads, and memberships that were not refreshed.

        Every quarter of the shorter of `expiry` and `group_expiry`; False if it was not time yet.
        """
        now = self.clock.monotonic()
        if now < self.sweep_due:
            return False
        if not self._to_sweep:
            self._to_sweep = list(self.inboxes)
            self.hub.drop_closed_loops()
        for _ in range(_SWEEP_STEP):
            try:
                channel = self._to_sweep.pop()
            except IndexError:
                # The last one, or another thread had it.
                break
            self._sweep_inbox(channel, now - self.policy.group_expiry)
        if not self._to_sweep:
            self.sweep_due = now + min(self.policy.expiry, self.policy.group_expiry) / 4
        return True

    def _sweep_inbox(self, channel: str, oldest: float) -> None:
        with self.lock:
            inbox = self.inboxes.get(channel)
            if inbox is None:
                return
            is_deserted = not inbox.readers and inbox.drop_expired() > 0
            for group in self.hub.groups_of(channel):
                if is_deserted or self.hub.groups[group].added[channel] <= oldest:
                    self.hub.discard(group, channel)
            self.tidy(channel)

    def clear(self) -> None:
        """Forget all groups and all unread messages; channels stay attached."""
        with self.lock:
            self.hub.forget_groups()
            for channel, inbox in list(self.inboxes.items()):
                inbox.take_all()
                self.tidy(channel)

    def statistics(self) -> dict[str, int]:
        with self.lock:
            counts = self.hub.statistics()
            counts["dropped_full"] += self._refused
            counts["inboxes"] = len(self.inboxes)
            return counts
