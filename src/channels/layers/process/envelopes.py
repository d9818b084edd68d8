"""The envelopes of a node: made of its messages, and turned to events for those who get them."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

from channels.exceptions import MalformedEnvelope
from channels.fanout.delivery import Event
from channels.layers.codec import Codec, UndecodableMessage
from channels.layers.contract import Bus, Leased
from channels.layers.envelope import Envelope, Kind, SeenWindow, decode_envelope
from channels.layers.names import new_sender
from channels.layers.process.local import LocalChannels
from channels.layers.process.losses import Losses
from channels.layers.seal import Seal, UnauthenticEnvelope, check_address

logger = logging.getLogger("channels.layers")

#: More than an envelope has beside its message: head, name, seal, and when it is due.
_MARGIN_OCTETS: Final = 1024
#: What nodes ask of each other is void after this; who asks waits for seconds only.
_CONTROL_SECONDS: Final = 60.0


class Envelopes:
    """Makes envelopes, and sorts out those that come: void, repeated, for whom.

    Args:
        seal: Closes and opens envelopes; then none that is not sealed is let in.

    Attributes:
        sender: The identity of this node's own envelopes.
        on_control: Takes envelopes for the node itself, and their opened payloads.
    """

    def __init__(
        self, local: LocalChannels, codec: Codec, seal: Seal | None, losses: Losses, bus: Bus
    ) -> None:
        self.local = local
        self.codec = codec
        self.losses = losses
        self.counters = losses.counters
        self.clock = local.clock
        self.sender = new_sender()
        self.on_control: Callable[[Envelope, bytes], None] = lambda *_: None
        self._seal = seal
        self._bus = bus
        # Such a bus neither repeats nor delays anything.
        self._is_direct = bus.capabilities.is_direct
        self._numbers = itertools.count(1)
        #: The last own envelope that the broker brings back here, and the last that it has brought.
        self._expected = self._returned = 0
        # Senders are on any thread, and the later number counts.
        self._expecting = threading.Lock()
        self._seen = SeenWindow()

    @property
    def broker_time(self) -> float:
        """Seconds by the clock in which deadlines are."""
        return self.clock.monotonic() + self._bus.clock_offset

    def make(self, kind: Kind, name: str, payload: bytes, life: float | None) -> Envelope:
        """An envelope from here that is void after `life` seconds; None: never."""
        deadline = 0
        if life is not None:
            deadline = int((self.clock.monotonic() + self._bus.clock_offset + life) * 1000)
        envelope = Envelope(kind, name, payload, self.sender, next(self._numbers), deadline)
        return envelope if self._seal is None else self._seal.close(envelope)

    def make_control(self, kind: Kind, name: str, payload: bytes) -> Envelope:
        """One that asks a node for something, however soon messages expire."""
        return self.make(kind, name, payload, max(self.local.policy.expiry, _CONTROL_SECONDS))

    def expect(self, envelope: Envelope) -> None:
        """An own envelope is sent that comes back to this process from the broker; any thread.

        At once, not on the owner loop: a send that is called next must know.
        """
        with self._expecting:
            self._expected = max(self._expected, envelope.seq)

    @property
    def are_expected(self) -> bool:
        """True if own envelopes are to come back.

        What is sent to a channel of this process meanwhile goes through the broker too, so that it
        overtakes nothing.
        """
        return self._expected > self._returned

    def note_return(self, envelope: Envelope) -> None:
        """An own envelope has come back, or will not; on the owner loop."""
        self._returned = max(self._returned, envelope.seq)

    def expect_none(self) -> None:
        """They may have been lost."""
        self._returned = self._expected

    def on_frame(self, data: bytes | Envelope) -> None:
        """As in `TransportEvents`."""
        try:
            self._admit(self._read(data))
        except (MalformedEnvelope, UndecodableMessage) as error:
            self.losses.unreadable(error)
        except Exception:
            # Nothing that comes in may stop what comes after it.
            self.counters["dropped_failed"] += 1
            if self.counters["dropped_failed"] % 1000 == 1:
                logger.exception("An envelope could not be delivered")
        if self.clock.monotonic() >= self.losses.due:
            self.losses.say()

    def open(self, leased: Leased) -> Event | None:
        """The event in an envelope that was taken from a queue.

        None if it is void, cannot be read or, sealed, was not sent there; that is counted.
        """
        try:
            envelope = self._read(leased.data)
            payload = envelope.payload
            if envelope.is_sealed or self._seal is not None:
                payload = self._opened(envelope)
                check_address(envelope, leased.queue)
            return self._event(envelope, payload)
        except (MalformedEnvelope, UndecodableMessage) as error:
            self.losses.unreadable(error)
            return None

    def _read(self, data: bytes | Envelope) -> Envelope:
        """Raises MalformedEnvelope if it is none, or longer than any of this layer."""
        if isinstance(data, Envelope):
            return data
        if len(data) > self.codec.max_bytes:
            self._check_size(data)
        return decode_envelope(data)

    def _check_size(self, data: bytes) -> None:
        """Refuse what is longer than any message of this layer, before it is copied or opened.

        Raises:
            MalformedEnvelope: If it is.
        """
        most = self.codec.max_bytes
        if len(data) > most + _MARGIN_OCTETS:
            raise MalformedEnvelope(f"{len(data)} bytes are over max_message_bytes={most}.")

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
            self._deliver(envelope, payload)
        finally:
            # After its delivery: another thread may look, and deliver what comes after it.
            if envelope.sender == self.sender:
                self.note_return(envelope)

    def _deliver(self, envelope: Envelope, payload: bytes) -> None:
        kind, name, local = envelope.kind, envelope.name, self.local
        if kind is Kind.GROUP:
            if name not in local.hub.groups:
                return
            if self.clock.monotonic() >= local.sweep_due:
                local.sweep()
            event = self._event(envelope, payload)
            if event is not None:
                local.hub.publish(name, event)
        elif kind is not Kind.CHANNEL:
            if envelope.is_expired(self.broker_time):
                self.counters["dropped_expired"] += 1
            else:
                self.on_control(envelope, payload)
        elif not local.is_here(name):
            self.counters["dropped_gone"] += 1
        else:
            event = self._event(envelope, payload)
            if event is not None:
                # Its sender is not told that it was dropped; that shows in the counts.
                local.deliver(name, event)

    def _opened(self, envelope: Envelope) -> bytes:
        """The payload of an envelope where one of the two, it or this layer, knows of seals.

        Raises:
            UnauthenticEnvelope: If the other does not, or no key of ours opens it.
        """
        self._check_size(envelope.payload)
        if self._seal is None:
            raise UnauthenticEnvelope(f"{envelope!r} is sealed, and this layer has no keys.")
        return self._seal.open(envelope)

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
