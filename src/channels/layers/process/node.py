"""One per process and layer: its identity, its parts, and what its transport tells.

Addresses (see `channels.layers.contract`): a channel that is attached here or bears this node's
mark is delivered in the process; one that bears another node's mark goes to that node's inbox; any
other is a queue.  Groups have members here, in the hub, and elsewhere, which the transport knows.

Registration, local delivery and `receive` work on any thread and loop.  What the transport does
happens on the owner loop, unless it is direct.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from channels.kit.clock import Clock, SystemClock
from channels.layers.codec import Codec, Serializer
from channels.layers.contract import Transport
from channels.layers.delivery import Deliveries
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import ALL_NODES, new_node
from channels.layers.options import LayerOptions
from channels.layers.process.control import Control
from channels.layers.process.envelopes import Envelopes
from channels.layers.process.inboxes import Policy
from channels.layers.process.later import Later
from channels.layers.process.leases import Leases
from channels.layers.process.link import Link
from channels.layers.process.local import LocalChannels
from channels.layers.process.losses import GapListener, Losses
from channels.layers.process.owner import watch_forks
from channels.layers.process.queues import Queues
from channels.layers.seal import Seal


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
        self.clock = clock or SystemClock()
        self.deliveries = Deliveries(options.delivery)
        self._policy = policy
        self._options = options
        self._fixed_mark = mark
        self._become_new()
        watch_forks(self)

    def _become_new(self) -> None:
        """Take a new identity and forget everything local: at first, and in a forked child."""
        self.id = new_node()
        self.mark = self._fixed_mark or f".{self.id}!"
        self.local = LocalChannels(self._policy, self.clock, self.mark)
        hub = self.local.hub
        self.link = Link(self.transport, self._options, hub.groups, self)
        self.losses = Losses(self.clock, self.statistics, self.gap_listeners, self.link.owner)
        self.counters = self.losses.counters
        hub.on_emptied, hub.on_full = self.link.release, self.losses.note_full
        self.envelopes = Envelopes(self.local, self.codec, self.seal, self.losses, self.transport)
        self.envelopes.on_control = self._on_control
        #: As in `TransportEvents`.
        self.on_frame = self.envelopes.on_frame
        self.control = Control(self.id, self.link, self.envelopes)
        self.queues = Queues(self.link, self.envelopes, self.deliveries, self.push)
        self.leases = Leases(self.queues)
        self.later = Later(self.link, self.envelopes, self.life_of, self._options.max_delayed)

    async def push(self, channel: str, payload: bytes, life: float | None) -> None:
        """Put an encoded message into a queue, to expire after `life` seconds; None: never."""
        envelope = self.envelopes.make(Kind.CHANNEL, channel, payload, life)
        limit = self._policy.get_capacity(channel)
        await self.link.do(len(payload), partial(self.transport.push, channel, envelope, limit))

    def life_of(self, channel: str) -> float | None:
        """Seconds until a message for a queue expires; None: never."""
        delivery = self.deliveries.find(channel)
        return self._policy.expiry if delivery is None else delivery.expiry

    def tidy(self, patience: float = 0.0) -> None:
        """What is due from time to time, and has no timer."""
        now = self.clock.monotonic()
        if now >= self.local.sweep_due + patience:
            self.local.sweep()
        if now >= self.losses.due:
            self.losses.say()

    async def flush(self) -> None:
        """Forget all messages and groups, here and wherever the transport reaches."""
        self.local.clear()
        await self.link.do(0, self.transport.flush)
        if not self.link.is_direct:
            envelope = self.envelopes.make_control(Kind.FLUSH, ALL_NODES, b"")
            await self.link.do(0, partial(self.transport.publish, ALL_NODES, envelope))

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
        self.envelopes.expect_none()
        self.link.on_down(error)

    def on_gap(self, groups: Sequence[str] | None) -> None:
        self.envelopes.expect_none()
        self.losses.tell_gap(groups)

    # What the link asks.

    def on_started(self) -> None:
        self.queues.on_started()

    def on_lost(self) -> None:
        self.envelopes.expect_none()
        self.local.hub.drop_closed_loops()
        self.control.forget_all()

    # Between nodes.

    def _on_control(self, envelope: Envelope, payload: bytes) -> None:
        if envelope.kind is Kind.FLUSH:
            if envelope.sender != self.envelopes.sender:
                self.local.clear()
        elif envelope.kind is Kind.LATER:
            self.later.keep(envelope.name, payload)
        else:
            self.control.on_envelope(envelope.kind, envelope.name, payload)
