"""A channel layer on a node: what all backends of ours are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from channels.exceptions import ChannelLayerUnavailable, InvalidChannelLayerError
from channels.fanout.delivery import Member, running_loop
from channels.kit.clock import Clock
from channels.kit.types import Message
from channels.layers.base import BaseChannelLayer
from channels.layers.codec import Serializer
from channels.layers.contract import Capabilities, Transport
from channels.layers.delivery import Delivery
from channels.layers.names import node_of
from channels.layers.options import LayerOptions
from channels.layers.outbound import outbound_message
from channels.layers.process.leases import Lease
from channels.layers.process.losses import GapListener
from channels.layers.process.node import Node

T = TypeVar("T")


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
        self.sync = BlockingLayer(self)

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
                messages wait for their time.
            MessageTooLarge: If it is over `max_message_bytes` once encoded.
            ChannelLayerUnavailable: If the backend could not be reached within `send_timeout`.
        """
        self.require_valid_channel_name(channel)
        if delay:
            self._check_delay(delay)
        await self.node.send(channel, self.node.codec.encode(message), delay)

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
        # One that is read already has a name that holds: a tenth of what a message to it costs.
        if channel not in self.node.local.inboxes:
            self._require_readable(channel)
        message = self.node.take(channel)
        return await self.node.receive(channel) if message is None else message

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
        name = await self.node.new_channel(prefix)
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
        if node_of(channel) is not None or self.node.local.is_own(channel):
            raise TypeError(f"{channel!r} is a channel of one process, and no queue.")
        return await self.node.backlog(channel)

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
        await self.node.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group; nothing happens if it is no member.

        Raises:
            TypeError: If a name breaks the rules.
            ChannelLayerUnavailable: If the channel is another's and the backend out of reach.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self.node.group_discard(group, channel)

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
        await self.node.group_send(group, self.node.codec.encode(message))

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


class BlockingLayer:
    """The verbs for code that runs no event loop: a sync view, a command, a task of Celery.

    Each call goes to the layer's own loop and blocks until it is done there; no loop and no
    connection is made for a call.  They raise what the layer's own verbs raise, and RuntimeError on
    a thread with a running loop, which they would stop.
    """

    def __init__(self, layer: NodeChannelLayer) -> None:
        self._layer = layer

    def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        self.call(lambda: self._layer.send(channel, message, delay=delay))

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """The next message.

        Raises:
            TimeoutError: If none came within `timeout` seconds (None: wait for ever).
        """
        return self.run(lambda: self._layer.receive(channel), timeout)

    def new_channel(self, prefix: str = "specific") -> str:
        return self.call(lambda: self._layer.new_channel(prefix))

    def group_add(self, group: str, channel: str) -> None:
        self.call(lambda: self._layer.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        self.call(lambda: self._layer.group_discard(group, channel))

    def group_send(self, group: str, message: Message) -> None:
        self.call(lambda: self._layer.group_send(group, message))

    def broadcast(
        self,
        group: str,
        *,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - ASGI's word for it
        json: Any = None,
    ) -> None:
        """As `channels.layers.broadcast`."""
        self.group_send(group, outbound_message(text=text, data=bytes, json=json))

    def backlog(self, channel: str) -> tuple[int, float | None]:
        return self.call(lambda: self._layer.backlog(channel))

    def flush(self) -> None:
        self.call(self._layer.flush)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`run` for what the layer's own bounds end.

        Raises:
            ChannelLayerUnavailable: If the loop that owns the layer does not answer.
        """
        # Longer than what the verbs themselves may take, so that their own error is seen.
        limit = 3 * self._layer.options.send_timeout + 5.0
        try:
            return self.run(work, limit)
        except TimeoutError:
            raise ChannelLayerUnavailable(
                f"The event loop that owns this layer did not answer within {limit} s."
            ) from None

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """What a coroutine gives that calls verbs of the layer, run on the layer's own loop.

        Raises:
            TimeoutError: If it takes more than `timeout` seconds; it is cancelled then.
        """
        if running_loop() is not None:
            raise RuntimeError(
                "layer.sync blocks its thread, and an event loop runs on this one: await the "
                "layer's own method instead."
            )
        return self._layer.node.link.owner.call_sync(work, timeout)
