"""What a transport brings, and what becomes of it: the receiving half of a node."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from channels.exceptions import ChannelFull, MalformedEnvelope
from channels.fanout.event import Event
from channels.kit.clock import Clock
from channels.kit.types import Message
from channels.layers.codec import Codec, UndecodableMessage
from channels.layers.drops import DropLog
from channels.layers.echoes import Echoes
from channels.layers.envelope import Envelope, Kind, decode_envelope
from channels.layers.local import LocalChannels
from channels.layers.window import SeenWindow

logger = logging.getLogger("channels.layers")


class Reception:
    """Sorts out envelopes: void, repeated, own, for a group, for a channel, for the node itself.

    Attributes:
        sender: The identity of this node's own envelopes.
        is_direct: Whether the transport is, and neither repeats nor delays anything.
        on_control: Takes envelopes for the node itself.
        drops: Says what was dropped.
    """

    def __init__(self, local: LocalChannels, codec: Codec, clock: Clock, sender: bytes) -> None:
        self.local = local
        self.sender = sender
        self.is_direct = False
        self.clock_offset: Callable[[], float] = lambda: 0.0
        self.on_control: Callable[[Envelope], None] = lambda _: None
        self.counters: Counter[str] = Counter()
        self.drops: DropLog | None = None
        self.echoes = Echoes()
        self.clock = clock
        self._codec = codec
        self._seen = SeenWindow()

    def on_frame(self, data: bytes) -> None:
        try:
            envelope = decode_envelope(data)
        except MalformedEnvelope as error:
            self.count_malformed(error)
        else:
            self.on_envelope(envelope)

    def on_envelope(self, envelope: Envelope) -> None:
        if not self.is_direct:
            if self._seen.is_repeat(envelope.sender, envelope.seq):
                self.counters["dropped_repeated"] += 1
                return
            self.counters["received"] += 1
        try:
            if envelope.kind is Kind.GROUP:
                self._to_group(envelope)
            elif envelope.kind is Kind.CHANNEL:
                self._to_channel(envelope)
            else:
                self.on_control(envelope)
        except MalformedEnvelope as error:
            self.count_malformed(error)
        except Exception:
            # Nothing that comes in may stop what comes after it.
            logger.exception("An envelope for %s could not be delivered", envelope.name)
        # After its delivery: another thread may look, and deliver what comes after it.
        if envelope.sender == self.sender and not self.is_direct:
            self.echoes.seen(envelope.seq)
        if self.drops is not None:
            self.drops.look()

    def _to_group(self, envelope: Envelope) -> None:
        name, hub = envelope.name, self.local.hub
        group = hub.groups.get(name)
        if group is None:
            return
        if group.oldest <= self.clock.time() - self.local.group_expiry:
            self.local.expire_members(name)
        event = self.open(envelope)
        if event is not None:
            hub.publish(name, event)

    def _to_channel(self, envelope: Envelope) -> None:
        if not self.local.is_here(envelope.name):
            self.counters["dropped_gone"] += 1
            return
        event = self.open(envelope)
        if event is None:
            return
        try:
            # The sender is on another process: that its message was dropped shows in the counts.
            self.local.deliver(envelope.name, event)
        except ChannelFull:
            self.counters["dropped_full"] += 1

    def open(self, envelope: Envelope, any_age: bool = False) -> Event | None:
        """The event in an envelope, or None if it is void or cannot be read; that is counted.

        Args:
            any_age: A sealed message may be older than `expiry`.
        """
        deadline = None
        if envelope.deadline:
            ahead = envelope.deadline / 1000 - (self.clock.time() + self.clock_offset())
            if ahead <= 0:
                self.counters["dropped_expired"] += 1
                return None
            # By this process's monotonic clock.
            deadline = self.clock.monotonic() + ahead
        message = self.message(envelope.payload, any_age)
        return None if message is None else Event(message, len(envelope.payload), deadline)

    def message(self, payload: bytes, any_age: bool = False) -> Message | None:
        """The message of a payload, or None, counted and logged, if there is none."""
        try:
            return self._codec.decode(payload, any_age)
        except UndecodableMessage as error:
            self.count_malformed(error)
            return None

    def count_malformed(self, error: Exception) -> None:
        """Count bytes that cannot be read; the first, and then each thousandth, is logged."""
        if self.counters["dropped_malformed"] % 1000 == 0:
            logger.warning("Dropped a message that cannot be read: %s", error)
        self.counters["dropped_malformed"] += 1
