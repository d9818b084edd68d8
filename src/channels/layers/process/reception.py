"""What a transport brings, and what becomes of it: the receiving half of a node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from channels.exceptions import MalformedEnvelope
from channels.fanout.delivery import Event
from channels.layers.codec import Codec, UndecodableMessage
from channels.layers.contract import Bus
from channels.layers.envelope import Envelope, Kind, decode_envelope
from channels.layers.names import new_sender
from channels.layers.process.local import LocalChannels
from channels.layers.process.losses import Losses
from channels.layers.process.window import SeenWindow
from channels.layers.seal import Seal, UnauthenticEnvelope, check_address

logger = logging.getLogger("channels.layers")

#: More than an envelope has beside its message: head, name, seal, and when it is due.
_MARGIN_OCTETS: Final = 1024


class Echoes:
    """The own envelopes under way to groups that this node has joined; waits on the owner loop.

    They come back from the broker to their sender too, in the one order that all nodes see.  A send
    to a channel of the own process is delivered without the broker: so that it does not overtake
    them, it waits until what was published before has come back.

    Attributes:
        awaited: The number of the last one that is being published or was; 0: it has come back.
            Set by the sender, on any thread.
        longest_seconds: How long a broker may take for an envelope, and again for its echo; what
            takes longer was lost, or its group was left.
    """

    def __init__(self, longest_seconds: float = 1.0) -> None:
        self.awaited = 0
        self.longest_seconds = longest_seconds
        #: Number of an envelope -> who goes on when it has come back.
        self._waiters: dict[int, asyncio.Future[None]] = {}

    def seen(self, seq: int) -> None:
        """It has come back, and with it all that was published before."""
        if seq == self.awaited:
            self.awaited = 0
        if self._waiters and (waiter := self._waiters.pop(seq, None)) is not None:
            waiter.set_result(None)

    def settle(self) -> None:
        """Await none: they may have been lost."""
        self.awaited = 0
        for waiter in self._waiters.values():
            waiter.set_result(None)
        self._waiters.clear()

    async def wait(self) -> None:
        """Until what has been published by now has come back, or is taken for lost."""
        seq = self.awaited
        if not seq:
            return
        waiter = self._waiters.get(seq)
        if waiter is None:
            waiter = self._waiters[seq] = asyncio.get_running_loop().create_future()
        await asyncio.wait([waiter], timeout=2 * self.longest_seconds)
        if not waiter.done():
            self.seen(seq)


class Reception:
    """Sorts out envelopes: void, repeated, own, for a group, for a channel, for the node itself.

    Args:
        seal: Opens envelopes; then none that is not sealed is let in.

    Attributes:
        sender: The identity of this node's own envelopes.
        on_control: Takes envelopes for the node itself, and their opened payloads.
    """

    def __init__(
        self, local: LocalChannels, codec: Codec, seal: Seal | None, losses: Losses, bus: Bus
    ) -> None:
        self.local = local
        self.sender = new_sender()
        self._bus = bus
        # Such a bus neither repeats nor delays anything.
        self._is_direct = bus.capabilities.is_direct
        self.on_control: Callable[[Envelope, bytes], None] = lambda *_: None
        self.losses = losses
        self.counters = losses.counters
        self.echoes = Echoes()
        self.clock = local.clock
        self.codec = codec
        self._seal = seal
        self._seen = SeenWindow()

    def on_frame(self, data: bytes | Envelope) -> None:
        """As in `TransportEvents`."""
        try:
            if isinstance(data, Envelope):
                self._admit(data)
            else:
                if len(data) > self.codec.max_bytes:
                    self._check_size(data)
                self._admit(decode_envelope(data))
        except (MalformedEnvelope, UndecodableMessage) as error:
            self.losses.unreadable(error)
        except Exception:
            # Nothing that comes in may stop what comes after it.
            self.counters["dropped_failed"] += 1
            if self.counters["dropped_failed"] % 1000 == 1:
                logger.exception("An envelope could not be delivered")
        if self.clock.monotonic() >= self.losses.due:
            self.losses.say()

    def _admit(self, envelope: Envelope) -> None:
        payload = envelope.payload
        # First of all: what is forged must not make what is genuine look repeated.
        if envelope.is_sealed or self._seal is not None:
            payload = self._opened(envelope)
        if not self._is_direct:
            if self._seen.is_repeat(envelope.sender, envelope.seq):
                self.counters["dropped_repeated"] += 1
                return
            self.counters["received"] += 1
        try:
            if envelope.kind is Kind.GROUP:
                self._to_group(envelope, payload)
            elif envelope.kind is Kind.CHANNEL:
                self._to_channel(envelope, payload)
            else:
                self._to_node(envelope, payload)
        finally:
            # After its delivery: another thread may look, and deliver what comes after it.
            if self.echoes.awaited and envelope.sender == self.sender:
                self.echoes.seen(envelope.seq)

    def _to_group(self, envelope: Envelope, payload: bytes) -> None:
        name, hub = envelope.name, self.local.hub
        group = hub.groups.get(name)
        if group is None:
            return
        if self.clock.monotonic() >= self.local.sweep_due:
            self.local.sweep()
        event = self._event(envelope, payload)
        if event is not None:
            hub.publish(name, event)

    def _to_channel(self, envelope: Envelope, payload: bytes) -> None:
        if not self.local.is_here(envelope.name):
            self.counters["dropped_gone"] += 1
            return
        event = self._event(envelope, payload)
        if event is not None:
            # The sender is on another process: that its message was dropped shows in the counts.
            self.local.deliver(envelope.name, event)

    def _to_node(self, envelope: Envelope, payload: bytes) -> None:
        due = envelope.deadline
        if due and due / 1000 - self._bus.clock_offset <= self.clock.monotonic():
            self.counters["dropped_expired"] += 1
        else:
            self.on_control(envelope, payload)

    def open(self, envelope: Envelope, queue: str) -> Event | None:
        """The event in an envelope that was taken from a queue.

        None if it is void, cannot be read or, sealed, was not sent there; that is counted.
        """
        payload = envelope.payload
        try:
            if envelope.is_sealed or self._seal is not None:
                payload = self._opened(envelope)
                check_address(envelope, queue)
            return self._event(envelope, payload)
        except (MalformedEnvelope, UndecodableMessage) as error:
            self.losses.unreadable(error)
            return None

    def _opened(self, envelope: Envelope) -> bytes:
        """The payload of an envelope where one of the two, it or this layer, knows of seals.

        Raises:
            UnauthenticEnvelope: If the other does not, or no key of ours opens it.
        """
        self._check_size(envelope.payload)
        if self._seal is None:
            raise UnauthenticEnvelope(f"{envelope!r} is sealed, and this layer has no keys.")
        return self._seal.open(envelope)

    def _check_size(self, data: bytes) -> None:
        """Refuse what is longer than any message of this layer, before it is copied or opened.

        Raises:
            MalformedEnvelope: If it is.
        """
        most = self.codec.max_bytes
        if len(data) > most + _MARGIN_OCTETS:
            raise MalformedEnvelope(f"{len(data)} bytes are over max_message_bytes={most}.")

    def _event(self, envelope: Envelope, payload: bytes) -> Event | None:
        """The event in an opened envelope, or None if it is void.

        Raises:
            UndecodableMessage: If it cannot be read.
        """
        until = None
        if envelope.deadline:
            # By this process's monotonic clock.
            until = envelope.deadline / 1000 - self._bus.clock_offset
            if until <= self.clock.monotonic():
                self.counters["dropped_expired"] += 1
                return None
        return Event(self.codec.decode(payload), len(payload), until)
