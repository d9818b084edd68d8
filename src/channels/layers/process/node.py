"""One per process and layer: everything that has meaning, on top of a transport.

Addresses (see `channels.layers.contract`): a channel that is attached here or bears this node's
mark is delivered in the process; one that bears another node's mark goes to that node's inbox; any
other is a queue.  Groups have members here, in the hub, and elsewhere, which the transport knows.

Registration, local delivery and `receive` work on any thread and loop.  What the transport does
happens on the owner loop, unless it is direct.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, cast

from channels.exceptions import ClientLimitExceeded, InvalidChannelLayerError, NodeGone
from channels.fanout.delivery import Event
from channels.kit.clock import Clock, SystemClock
from channels.kit.types import Message
from channels.layers.codec import Codec, Serializer
from channels.layers.contract import DelayedQueue, QueueMembers, Transport
from channels.layers.delivery import Deliveries
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import ALL_NODES, local_part, new_node, node_of
from channels.layers.options import LayerOptions
from channels.layers.process.control import Control
from channels.layers.process.inboxes import Policy
from channels.layers.process.later import Later, pack_later
from channels.layers.process.leases import Leases
from channels.layers.process.link import Link
from channels.layers.process.local import LocalChannels
from channels.layers.process.losses import GapListener, Losses
from channels.layers.process.owner import watch_forks
from channels.layers.process.queues import Queues
from channels.layers.process.reception import Reception
from channels.layers.seal import Seal

logger = logging.getLogger("channels.layers")

#: After so many messages `receive` gives the loop a turn: many may wait, and nothing else would.
_TURN: Final = 50
#: What nodes ask of each other is void after this; who asks waits for seconds only.
_CONTROL_SECONDS: Final = 60.0


class Node:
    """A process's end of a layer.

    Args:
        transport: Moves its envelopes.
        policy: What may change while it runs: the layer itself.
        mark: How names of its channels end before their local part; None: ".<node>!".
        serializer: In the place of the one that `serializer_format` names.
    """

    def __init__(
        self,
        transport: Transport,
        policy: Policy,
        options: LayerOptions,
        *,
        clock: Clock | None = None,
        mark: str | None = None,
        serializer: Serializer | None = None,
    ) -> None:
        self.transport = transport
        self.codec = Codec(
            options.serializer_format, max_bytes=options.max_message_bytes, serializer=serializer
        )
        keys = options.symmetric_encryption_keys
        self.seal = Seal(keys) if keys else None
        self.gap_listeners: list[GapListener] = []
        self._policy = policy
        self._options = options
        self._clock = clock or SystemClock()
        self._fixed_mark = mark
        self.deliveries = Deliveries(options.delivery)
        self._become_new()
        watch_forks(self)

    def _become_new(self) -> None:
        """Take a new identity and forget everything local: at first, and in a forked child."""
        self.id = new_node()
        self.mark = self._fixed_mark or f".{self.id}!"
        self.local = LocalChannels(self._policy, self._clock, self.mark)
        groups = self.local.hub.groups
        self.link = Link(self.transport, self._options, groups, self)
        self.local.hub.on_emptied = self.link.release
        self.losses = Losses(self._clock, self.statistics, self.gap_listeners, self.link.owner)
        self.counters = self.losses.counters
        self.local.hub.on_full = self.losses.note_full
        self.reception = Reception(self.local, self.codec, self.seal, self.losses, self.transport)
        self.reception.on_control = self._on_control
        # As any send may take: a backend that is polled is seconds behind on a busy machine.
        self.reception.echoes.longest_seconds = self._options.send_timeout
        #: As in `TransportEvents`.
        self.on_frame = self.reception.on_frame
        self.control = Control(self.id, self.link, self.reception, self._control_envelope)
        self.queues = Queues(self.link, self.reception, self.deliveries, self._push_message)
        self.leases = Leases(self.link, self.reception, self.queues, self._push_message)
        self.later = Later(self.reception, self._options.max_delayed)
        self._seq = itertools.count(1)
        self._received = 0

    async def new_channel(self, prefix: str) -> str:
        """A name that others can send to from now on, if the backend is in reach."""
        await self.link.start()
        return f"{prefix}{self.mark}{local_part()}"

    # The verbs.  Names are checked and messages encoded by the layer.

    async def send(self, channel: str, payload: bytes, delay: float = 0.0) -> None:
        """Send an encoded message to one channel; as `NodeChannelLayer.send`."""
        # Later than others: one who only sends should not have to clear up.
        self._tidy_up(patience=2 * self._policy.expiry)
        self.counters["sent"] += 1
        node = self.id if channel in self.local.hub.channels else node_of(channel)
        if node == self.id or (node is None and self.local.is_here(channel)):
            if delay:
                self.later.put(channel, payload, delay)
            else:
                await self._send_own(channel, payload)
            return
        push: Callable[[], Awaitable[None]]
        if delay:
            push = self._later_push(channel, node, payload, delay)
        elif node is None:
            envelope = self._envelope(Kind.CHANNEL, channel, payload, self.life_of(channel))
            limit = self._policy.get_capacity(channel)
            push = partial(self.transport.push, channel, envelope, limit)
        else:
            envelope = self._envelope(Kind.CHANNEL, channel, payload)
            push = partial(self.transport.push_node, node, envelope)
        try:
            await self.link.do(len(payload), push)
        except NodeGone:
            # At most once: its process is gone, and the message with it.
            self.counters["dropped_gone"] += 1

    async def _send_own(self, channel: str, payload: bytes) -> None:
        """Deliver in this process, after what it has sent to groups before."""
        echoes = self.reception.echoes
        if echoes.awaited:
            patience = self.link.patience + 2 * echoes.longest_seconds
            await self.link.owner.call(echoes.wait, patience)
        deadline = self._clock.monotonic() + self._policy.expiry
        event = Event(self.codec.decode(payload), len(payload), deadline)
        await self.local.send(channel, event, self._options.send_timeout)

    def _later_push(
        self, channel: str, node: str | None, payload: bytes, delay: float
    ) -> Callable[[], Awaitable[None]]:
        """What sends a message that is to be delivered later."""
        due = self._broker_time() + delay
        if node is not None:
            # That process holds it: it is of no use to anyone when the process has gone.
            content = pack_later(due, payload)
            envelope = self._envelope(Kind.LATER, channel, content, self._policy.expiry + delay)
            return partial(self.transport.push_node, node, envelope)
        if not self.transport.capabilities.delays:
            raise InvalidChannelLayerError(
                f"{type(self._policy).__name__} cannot delay a message for {channel!r}: send it "
                "when it is due, or use a backend that can (RedisChannelLayer for one)."
            )
        life = self.life_of(channel)
        envelope = self._envelope(
            Kind.CHANNEL, channel, payload, None if life is None else life + delay
        )
        transport = cast(DelayedQueue, self.transport)
        return partial(transport.push_later, channel, envelope, due, self._options.max_delayed)

    def receive(self, channel: str) -> Awaitable[Message]:
        """The next message of a channel of which `take` found none; as the layer's `receive`.

        Raises:
            RuntimeError: If a consumer is attached under that name.
        """
        if self.local.is_attached(channel):
            raise RuntimeError(f"{channel} belongs to a consumer, which takes its messages itself.")
        receive = self._receive_own if self.local.is_own(channel) else self.queues.receive
        return receive(channel) if self._received % _TURN else self._receive_next_turn(channel)

    async def _receive_own(self, channel: str) -> Message:
        await self.link.start()
        return await self.local.receive(channel)

    async def _receive_next_turn(self, channel: str) -> Message:
        await asyncio.sleep(0)
        self._received += 1
        return await self.receive(channel)

    def take(self, channel: str) -> Message | None:
        """The next message of a channel that has come already, or None: `receive` waits for one."""
        if self._clock.monotonic() >= self.local.sweep_due:
            self.local.sweep()
        self._received += 1
        return self.local.take(channel) if self._received % _TURN else None

    async def backlog(self, channel: str) -> tuple[int, float | None]:
        """How many messages wait in a queue, and for how many seconds the oldest has."""
        waiting, deadline = await self.link.do(0, partial(self.transport.backlog, channel))
        life = self.life_of(channel)
        if not waiting or not deadline or life is None:
            return waiting, None
        # What a later `delivery` or another process's clock makes of it is not below 0.
        return waiting, max(0.0, self._broker_time() - deadline / 1000 + life)

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel, whoever's it is, to a group; as `BaseChannelLayer.group_add`."""
        if self.local.is_here(channel):
            try:
                self.local.add(group, channel)
            except ClientLimitExceeded:
                self.counters["refused_groups"] += 1
                raise
            if not await self.link.join(group):
                # The membership stands and takes effect when the backend is back.
                self.counters["joined_late"] += 1
        elif (node := node_of(channel)) is not None:
            await self.control.ask(Kind.ADD, node, group, channel)
        else:
            expires = self._broker_time() + self._policy.group_expiry
            add = partial(self._queue_members(channel).add_queue, group, channel, expires)
            await self.link.do(0, add)

    async def group_discard(self, group: str, channel: str) -> None:
        """The reverse; as `BaseChannelLayer.group_discard`."""
        if self.local.is_here(channel):
            self.local.discard(group, channel)
        elif (node := node_of(channel)) is not None:
            await self.control.ask(Kind.DISCARD, node, group, channel)
        else:
            discard = partial(self._queue_members(channel).discard_queue, group, channel)
            await self.link.do(0, discard)

    def _queue_members(self, channel: str) -> QueueMembers:
        if not self.transport.capabilities.queue_members:
            raise InvalidChannelLayerError(
                f"{type(self._policy).__name__} cannot make {channel!r} a member of a group: it is "
                "a queue.  Use a backend that can (RedisChannelLayer for one)."
            )
        return cast(QueueMembers, self.transport)

    async def group_send(self, group: str, payload: bytes) -> None:
        """Send an encoded message to a group; as `BaseChannelLayer.group_send`."""
        now = self._clock.monotonic()
        if now >= self.local.sweep_due or now >= self.losses.due:
            self._tidy_up()
        self.counters["group_sent"] += 1
        envelope = self._envelope(Kind.GROUP, group, payload)
        if self.link.is_direct:
            await self.transport.publish(group, envelope)
            if group in self.local.hub.groups:
                await self.local.hub.give_way()
            return
        echoes = self.reception.echoes
        if self.link.subscriptions.is_joined(group):
            # At once, not on the owner loop: a send that is called next must know.
            echoes.awaited = max(echoes.awaited, envelope.seq)
        try:
            await self.link.do(len(payload), partial(self.transport.publish, group, envelope))
        except BaseException:
            # It will not come back, or nobody is to wait for it.
            self.link.owner.post(partial(echoes.seen, envelope.seq))
            raise

    def _tidy_up(self, patience: float = 0.0) -> None:
        """What is due from time to time, and has no timer."""
        now = self._clock.monotonic()
        if now >= self.local.sweep_due + patience:
            self.local.sweep()
        if now >= self.losses.due:
            self.losses.say()

    async def flush(self) -> None:
        """Forget all messages and groups, here and wherever the transport reaches."""
        self.local.clear()
        await self.link.do(0, self.transport.flush)
        if not self.link.is_direct:
            envelope = self._control_envelope(Kind.FLUSH, ALL_NODES, b"")
            await self.link.do(0, partial(self.transport.publish, ALL_NODES, envelope))

    # Life.

    async def close(self) -> None:
        """Let go of the broker; the next use connects again."""
        self.losses.say()
        if not self.link.is_direct and self.link.owner.current is not None:
            await self.link.owner.call(self.queues.close, self.link.patience)
        await self.link.close()
        if self.link.is_direct:
            self.local.clear()
            self.later.clear()

    def after_fork(self) -> None:
        """In a forked child: another node, without the parent's loops, sockets and members."""
        self.link.abandon()
        self._become_new()

    def statistics(self) -> dict[str, int]:
        """Counters since the process began; the names say what they count.  Any thread."""
        # Copied in one step: another thread may count something for the first time meanwhile.
        total = Counter(dict(self.counters))
        total["delayed_here"] = len(self.later)
        for part in (self.local.statistics(), self.link.statistics()):
            total.update(part)
        return dict(total)

    # What the transport tells.

    def on_over_capacity(self, group: str, full: int, members: int) -> None:
        self.counters["dropped_full_queue"] += full
        self.local.hub.report_full(group, full, members)

    def capacity_of(self, channel: str) -> int:
        return self._policy.get_capacity(channel)

    def on_up(self, kept: bool) -> None:
        self.link.on_up(kept)

    def on_down(self, error: BaseException | None) -> None:
        self.reception.echoes.settle()
        self.link.on_down(error)

    def on_gap(self, groups: Sequence[str] | None) -> None:
        self.reception.echoes.settle()
        self.losses.tell_gap(groups)

    # What the link asks.

    def on_started(self) -> None:
        self.queues.on_started()

    def on_lost(self) -> None:
        self.local.hub.drop_closed_loops()
        self.control.forget_all()

    # Inside.

    def _broker_time(self) -> float:
        return self._clock.monotonic() + self.transport.clock_offset

    def life_of(self, channel: str) -> float | None:
        """Seconds until a message for a queue expires; None: never."""
        delivery = self.deliveries.find(channel)
        return self._policy.expiry if delivery is None else delivery.expiry

    def _envelope(
        self, kind: Kind, name: str, payload: bytes, life: float | None = -1.0
    ) -> Envelope:
        """An envelope from here; `life` in seconds, None: it never expires, -1: as all others."""
        deadline = 0
        if life is not None:
            if life == -1.0:
                life = self._policy.expiry
            deadline = int((self._clock.monotonic() + self.transport.clock_offset + life) * 1000)
        envelope = Envelope(kind, name, payload, self.reception.sender, next(self._seq), deadline)
        return envelope if self.seal is None else self.seal.close(envelope)

    def _control_envelope(self, kind: Kind, name: str, payload: bytes) -> Envelope:
        """One that asks a node for something, however soon messages expire."""
        life = max(self._policy.expiry, _CONTROL_SECONDS)
        return self._envelope(kind, name, payload, life)

    async def _push_message(self, channel: str, message: Message, life: float | None) -> None:
        """Put a message into a queue, to expire after `life` seconds or never."""
        payload = self.codec.encode(message)
        envelope = self._envelope(Kind.CHANNEL, channel, payload, life)
        limit = self._policy.get_capacity(channel)
        await self.link.do(len(payload), partial(self.transport.push, channel, envelope, limit))

    # Between nodes.

    def _on_control(self, envelope: Envelope, payload: bytes) -> None:
        if envelope.kind is Kind.FLUSH:
            if envelope.sender != self.reception.sender:
                self.local.clear()
        elif envelope.kind is Kind.LATER:
            self.later.keep(envelope.name, payload, self._broker_time())
        else:
            self.control.on_envelope(envelope.kind, envelope.name, payload)
