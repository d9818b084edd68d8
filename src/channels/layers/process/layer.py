"""A channel layer on a node: what all backends of ours are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar, Final, cast

from channels.exceptions import (
    ChannelLayerUnavailable,
    ClientLimitExceeded,
    InvalidChannelLayerError,
    NodeGone,
)
from channels.fanout.delivery import Event, Member
from channels.kit.clock import Clock
from channels.kit.types import Message
from channels.layers.base import BaseChannelLayer
from channels.layers.codec import Serializer
from channels.layers.contract import Capabilities, QueueMembers, Transport
from channels.layers.delivery import Delivery
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import local_part, node_of
from channels.layers.options import LayerOptions
from channels.layers.process.blocking import BlockingLayer
from channels.layers.process.leases import Lease
from channels.layers.process.losses import GapListener
from channels.layers.process.node import Node

#: After so many messages `receive` gives the loop a turn: many may wait, and nothing else would.
_TURN: Final = 50


class NodeChannelLayer(BaseChannelLayer):
    """The contract, on any transport.  A backend's class makes its transport and calls this.

    Usable from any thread and event loop; see `sync` for code that runs in none.

    Args:
        mark: See `Node`.
        serializer: See `Node`.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]

    def __init__(
        self,
        transport: Transport,
        options: LayerOptions,
        *,
        clock: Clock | None = None,
        mark: str | None = None,
        serializer: Serializer | None = None,
    ) -> None:
        super().__init__(options.expiry, options.capacity, options.channel_capacity)
        self.group_expiry = options.group_expiry
        self.options = options
        self.node = Node(transport, self, options, clock=clock, mark=mark, serializer=serializer)
        #: The verbs for code without an event loop; each call blocks until it is done.
        self.sync = BlockingLayer(self, self.node)
        self._received = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do."""
        return self.node.transport.capabilities

    def get_capacity_bytes(self, channel: str) -> int:
        """How many bytes this channel may hold unread if it is one of this process."""
        return self.options.bytes_of(self.get_capacity(channel))

    async def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        """Send a message to one channel, at most once unless `delivery` says more.

        Args:
            delay: Seconds before it is delivered: not earlier, seldom more than one later, up to
                five if this process ends.  Meanwhile it survives what a message in that channel
                survives; `expiry` counts from then.

        Raises:
            TypeError: If the name breaks the rules, or the message holds what cannot be encoded.
            ValueError: If the delay is negative, not finite, or over `max_delay`.
            InvalidChannelLayerError: If there is a delay and the backend cannot hold messages back.
            ChannelFull: If the channel holds its capacity of unread messages, or `max_delayed`
                messages wait for their time.  One of another process drops and counts the message,
                and so does one of this process while a group's message is on its way to here.
            MessageTooLarge: If it is over `max_message_bytes` once encoded.
            ChannelLayerUnavailable: If the backend could not be reached within `send_timeout`.
        """
        self.require_valid_channel_name(channel)
        if delay:
            self._check_delay(delay)
        node = self.node
        payload = node.codec.encode(message)
        # Later than others: one who only sends should not have to clear up.
        node.tidy(patience=2 * self.expiry)
        node.counters["sent"] += 1
        try:
            if delay:
                await node.later.send(channel, payload, delay)
            elif node.local.is_here(channel):
                await self._send_own(channel, payload)
            elif (owner := node_of(channel)) is not None:
                await self._push_node(owner, channel, payload)
            else:
                await node.push(channel, payload, node.life_of(channel))
        except NodeGone:
            # At most once: its process is gone, and the message with it.
            node.counters["dropped_gone"] += 1

    async def _push_node(self, owner: str, channel: str, payload: bytes) -> None:
        node = self.node
        envelope = node.envelopes.make(Kind.CHANNEL, channel, payload, self.expiry)
        push = partial(node.transport.push_node, owner, envelope)
        if owner != node.id:
            await node.link.do(len(payload), push)
            return
        try:
            await self._do_expecting(envelope, push)
        except (NodeGone, ChannelLayerUnavailable):
            # What the broker cannot bring back is taken as if it had; should it do so after all,
            # that is a repeat.
            if not node.link.owner.post(partial(node.envelopes.on_frame, envelope)):
                raise

    async def _do_expecting(self, envelope: Envelope, do: Callable[[], Awaitable[None]]) -> None:
        """Send an envelope that comes back to this process."""
        node = self.node
        node.envelopes.expect(envelope)
        try:
            await node.link.do(len(envelope.payload), do)
        except BaseException:
            # It will not come back, or nobody is to wait for it.
            node.link.owner.post(partial(node.envelopes.note_return, envelope))
            raise

    async def _send_own(self, channel: str, payload: bytes) -> None:
        """Send to a channel of this process, after what it has sent to groups before."""
        node = self.node
        if node.envelopes.are_expected:
            await self._push_node(node.id, channel, payload)
            return
        deadline = node.clock.monotonic() + self.expiry
        event = Event(node.codec.decode(payload), len(payload), deadline)
        await node.local.send(channel, event, self.options.send_timeout)

    def _check_delay(self, delay: float) -> None:
        limit = self.options.max_delay
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= limit:
            raise ValueError(f"delay={delay!r}: expected seconds from 0 to {limit} (max_delay).")

    async def receive(self, channel: str) -> Message:
        """The next message of a channel; of several readers, in any process, one gets it.

        Waits through failures of the backend.  Cancel safety: a cancelled call takes nothing.

        Raises:
            TypeError: If the name breaks the rules, or the channel is another process's.
        """
        node, local = self.node, self.node.local
        # One that is read already has a name that holds: a tenth of what a message to it costs.
        if channel not in local.inboxes:
            self._require_readable(channel)
        if node.clock.monotonic() >= local.sweep_due:
            local.sweep()
        self._received += 1
        if not self._received % _TURN:
            await asyncio.sleep(0)
        if local.is_attached(channel):
            raise RuntimeError(f"{channel} belongs to a consumer, which takes its messages itself.")
        if not local.is_own(channel):
            return await node.queues.receive(channel)
        await node.link.start()
        return await local.receive(channel)

    def _require_readable(self, channel: str) -> None:
        """Raise TypeError unless this process may receive from the channel."""
        self.require_valid_channel_name(channel)
        owner = node_of(channel)
        if owner not in {None, self.node.id} and not self.capabilities.is_direct:
            raise TypeError(
                f"Cannot receive from {channel!r}: it was made by new_channel() of another process "
                "or layer, or before this process was forked, and only that one reads it. Call "
                "new_channel() here, and send that name to whoever shall reply."
            )

    def delivery_of(self, channel: str) -> Delivery | None:
        """How a channel is delivered at least once; None: it is delivered at most once."""
        return self.node.deliveries.find(channel)

    async def receive_leased(self, channel: str) -> tuple[Message, Lease]:
        """The next message of a channel that `delivery` names, and its lease.

        It comes again, to whoever reads, unless its lease is ended in time:

            message, lease = await layer.receive_leased("thumbnails.large")
            async with lease:
                make(message)

        Waits through failures of the backend.  Cancel safety: a cancelled call takes nothing.

        Raises:
            TypeError: If the name breaks the rules, or the channel is another process's.
            InvalidChannelLayerError: If the channel is delivered at most once.
        """
        self._require_readable(channel)
        delivery = self.delivery_of(channel)
        if delivery is None:
            raise InvalidChannelLayerError(
                f"{channel!r} is delivered at most once: name it in the layer's `delivery` as "
                "'at-least-once' to receive from it on lease."
            )
        return await self.node.leases.receive(channel, delivery)

    async def new_channel(self, prefix: str = "specific") -> str:
        """A name for a channel that only this process reads: "<prefix>.<node>!<12 letters>".

        Raises:
            TypeError: If the prefix makes the name too long, or has characters that none may have.
        """
        await self.node.link.start()
        name = f"{prefix}{self.node.mark}{local_part()}"
        self.require_valid_channel_name(name)
        return name

    async def backlog(self, channel: str) -> tuple[int, float | None]:
        """How many messages of a channel wait for a worker, and how long the oldest has.

        Without those on lease.  Seconds; None: none waits, or none in this channel expires, or the
        backend (RabbitMQ, NATS) does not show them.

        Raises:
            TypeError: If the name breaks the rules, or the channel is of one process.
            ChannelLayerUnavailable: If the backend could not be reached within `send_timeout`.
        """
        self.require_valid_channel_name(channel)
        node = self.node
        if node_of(channel) is not None or node.local.is_own(channel):
            raise TypeError(f"{channel!r} is a channel of one process, and no queue.")
        waiting, deadline = await node.link.do(0, partial(node.transport.backlog, channel))
        life = node.life_of(channel)
        if not waiting or not deadline or life is None:
            return waiting, None
        # What a later `delivery` or another process's clock makes of it is not below 0.
        return waiting, max(0.0, node.envelopes.broker_time - deadline / 1000 + life)

    async def group_add(self, group: str, channel: str) -> None:
        """Make a channel, whoever reads it, a member of a group, or refresh its membership.

        What is sent to the group after this returns reaches the channel.  If the backend is out
        of reach for `send_timeout` it returns nevertheless for a channel of this process, whose
        membership takes effect later.

        Raises:
            TypeError: If a name breaks the rules.
            ClientLimitExceeded: If the channel is in as many groups as its consumer's
                `client_limits` allow.
            ChannelLayerUnavailable: If the channel is another's and the backend out of reach.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        node = self.node
        if node.local.is_here(channel):
            try:
                node.local.add(group, channel)
            except ClientLimitExceeded:
                node.counters["refused_groups"] += 1
                raise
            if not await node.link.join(group):
                # The membership stands and takes effect when the backend is back.
                node.counters["joined_late"] += 1
        elif (owner := node_of(channel)) is not None:
            await node.control.ask(Kind.ADD, owner, group, channel)
        else:
            expires = node.envelopes.broker_time + self.group_expiry
            add = partial(self._queue_members(channel).add_queue, group, channel, expires)
            await node.link.do(0, add)

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; nothing happens if it is no member.

        Raises:
            TypeError: If a name breaks the rules.
            ChannelLayerUnavailable: If the channel is another's and the backend out of reach.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        node = self.node
        if node.local.is_here(channel):
            node.local.discard(group, channel)
        elif (owner := node_of(channel)) is not None:
            await node.control.ask(Kind.DISCARD, owner, group, channel)
        else:
            discard = partial(self._queue_members(channel).discard_queue, group, channel)
            await node.link.do(0, discard)

    def _queue_members(self, channel: str) -> QueueMembers:
        if not self.capabilities.queue_members:
            raise InvalidChannelLayerError(
                f"{type(self).__name__} cannot make {channel!r} a member of a group: it is "
                "a queue.  Use a backend that can (RedisChannelLayer for one)."
            )
        return cast(QueueMembers, self.node.transport)

    async def group_send(self, group: str, message: Message) -> None:
        """Send a message to every member of a group, at most once each.

        All processes see the messages of a group in one order.  A full member is passed over,
        counted and logged.  An outbound event, `{"type": "websocket.send", "text": ...}`, goes
        straight to the members' sockets where these allow it.

        Raises:
            TypeError: If the name breaks the rules, or the message holds what cannot be encoded.
            MessageTooLarge: If it is over `max_message_bytes` once encoded.
            ChannelLayerUnavailable: If the backend could not be reached within `send_timeout`.
        """
        self.require_valid_group_name(group)
        node = self.node
        payload = node.codec.encode(message)
        now = node.clock.monotonic()
        if now >= node.local.sweep_due or now >= node.losses.due:
            node.tidy()
        node.counters["group_sent"] += 1
        envelope = node.envelopes.make(Kind.GROUP, group, payload, self.expiry)
        if node.link.is_direct:
            await node.transport.publish(group, envelope)
            if group in node.local.hub.groups:
                await node.local.hub.give_way()
            return
        publish = partial(node.transport.publish, group, envelope)
        if group in node.link.subscriptions.joined:
            await self._do_expecting(envelope, publish)
        else:
            await node.link.do(len(payload), publish)

    async def flush(self) -> None:
        """Forget all messages and groups, those of other processes too."""
        await self.node.flush()

    async def close(self) -> None:
        """Let go of the backend's connections; the layer may be used again."""
        await self.node.close()

    def adopt_loop(self) -> bool:
        """Do all I/O on the running loop, which lives as long as this process serves.

        For servers and workers; without it a thread of the layer's own does it.  False if its
        connections live on another loop already, or if it has none.
        """
        if self.capabilities.is_direct:
            return False
        return self.node.link.owner.adopt(asyncio.get_running_loop())

    def attach(self, channel: str, member: Member) -> None:
        """Put this channel's messages into a consumer's mailbox from now on, or into its sink."""
        self.node.local.attach(channel, member)

    def detach(self, channel: str) -> None:
        """The consumer has ended: forget its channel and its memberships."""
        self.node.local.detach(channel)

    def groups_of(self, channel: str) -> frozenset[str]:
        """The groups of which a channel of this process is a member."""
        return self.node.local.hub.groups_of(channel)

    def statistics(self) -> dict[str, int]:
        """Counters since the process began (sent, delivered, dropped by reason) and sizes now."""
        return self.node.statistics()

    def add_gap_listener(self, listener: GapListener) -> None:
        """Be told, on the layer's own loop, of groups whose messages may have been lost.

        Lost in the backend, or because members of this process were full (within a second then).
        """
        self.node.gap_listeners.append(listener)
