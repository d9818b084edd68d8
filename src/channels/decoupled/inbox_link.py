"""A session through the layer: numbers of batches, and what is not confirmed."""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Final, Protocol

from channels.decoupled.messages import BATCH_MESSAGES
from channels.decoupled.peer_link import PeerLink
from channels.kit.limits import KIB
from channels.kit.types import Message

#: A batch is closed when it has so much; a single larger message still goes.
BATCH_BYTES: Final = 256 * KIB
#: Received batches, and bytes, after which the other is told at once.
CONFIRM_BATCHES: Final = 32
CONFIRM_BYTES: Final = 512 * KIB
#: Heartbeats after which a batch that is not confirmed is sent again.
REPEAT_TICKS: Final = 2


class OutgoingBatch:
    """Messages under one number."""

    __slots__ = ("messages", "number", "size", "ticks")

    def __init__(self, number: int, messages: list[Message], size: int) -> None:
        self.number = number
        self.messages = messages
        self.size = size
        #: Heartbeats since it was sent.
        self.ticks = 0


class InboxSender(Protocol):
    """The carrier, as its sessions see it."""

    def wake(self, link: InboxLink) -> None:
        """Send what a session has to send."""

    def reset(self, peer: str, theirs: bytes | None) -> None:
        """Tell a peer that its session is over here."""


class InboxLink(PeerLink):
    """One session that the layer carries.

    Args:
        most_bytes: What may wait, and again what may be on its way without confirmation.
    """

    __slots__ = (
        "_most_bytes",
        "_number",
        "_seen_bytes",
        "_seen_told",
        "_sender",
        "_sent",
        "_sent_bytes",
        "_waiting",
        "_waiting_bytes",
        "confirms_now",
        "is_sending",
        "is_silent",
        "mine",
        "repeats",
        "seen",
        "theirs",
    )

    def __init__(self, peer: str, most_bytes: int, sender: InboxSender) -> None:
        super().__init__(peer)
        self._sender = sender
        #: The two names of the session, by which batches of an earlier one are told from its own.
        self.mine = os.urandom(8)
        self.theirs: bytes | None = None
        #: True while a task sends.
        self.is_sending = False
        #: True if nothing was sent since the last heartbeat.
        self.is_silent = True
        #: What the sending task is to do beside new batches.
        self.confirms_now = self.repeats = False
        #: The number of the last batch that came in order.
        self.seen = 0
        self._most_bytes = most_bytes
        self._number = 0
        self._seen_told = self._seen_bytes = 0
        self._waiting: deque[tuple[Message, int]] = deque()
        self._waiting_bytes = 0
        self._sent: deque[OutgoingBatch] = deque()
        self._sent_bytes = 0

    @property
    def has_room(self) -> bool:
        """False while too much waits."""
        return self._waiting_bytes < self._most_bytes

    @property
    def has_waiting(self) -> bool:
        """True if something is in no batch yet."""
        return bool(self._waiting)

    @property
    def unconfirmed(self) -> list[OutgoingBatch]:
        """Batches that the other has not confirmed, in order."""
        return list(self._sent)

    def put(self, message: Message, size: int) -> None:
        """Add a message for the next batch."""
        self._waiting.append((message, size))
        self._waiting_bytes += size
        self._sender.wake(self)

    def next_batch(self) -> OutgoingBatch | None:
        """What is to be sent next; None if nothing is, or too much is not confirmed."""
        if not self._waiting or self._sent_bytes >= self._most_bytes:
            return None
        messages: list[Message] = []
        size = 0
        while self._waiting and len(messages) < BATCH_MESSAGES:
            message, octets = self._waiting[0]
            if messages and size + octets > BATCH_BYTES:
                break
            self._waiting.popleft()
            messages.append(message)
            size += octets
        self._waiting_bytes -= size
        self._number += 1
        batch = OutgoingBatch(self._number, messages, size)
        self._sent.append(batch)
        self._sent_bytes += size
        return batch

    def empty_batch(self) -> OutgoingBatch:
        """A sign of life, which has no number of its own."""
        return OutgoingBatch(self._number, [], 0)

    def told(self) -> None:
        """The other is told of `seen`."""
        self.confirms_now = self.is_silent = False
        self._seen_told, self._seen_bytes = self.seen, 0

    def confirmed(self, number: int) -> None:
        """The other has all batches up to this number."""
        while self._sent and self._sent[0].number <= number:
            self._sent_bytes -= self._sent.popleft().size

    def saw(self, octets: int) -> None:
        """The next batch has come."""
        self.seen += 1
        self._seen_bytes += octets
        if self.seen - self._seen_told >= CONFIRM_BATCHES or self._seen_bytes >= CONFIRM_BYTES:
            self.confirms_now = True

    def beat(self) -> None:
        """A heartbeat has passed: say that this side lives, and repeat what was lost."""
        for batch in self._sent:
            batch.ticks += 1
        if self._sent and self._sent[0].ticks >= REPEAT_TICKS:
            self.repeats = True
        elif self.is_silent or self._seen_told != self.seen:
            self.confirms_now = True
        self.is_silent = True
        self._sender.wake(self)

    def end(self) -> None:
        """The session is over: nothing of it is sent any more."""
        self.is_alive = False
        self._waiting.clear()
        self._waiting_bytes = 0
        self._sent.clear()
        self._sent_bytes = 0

    def close(self) -> None:
        """Tell the peer that the session is over, and end it."""
        self.end()
        self._sender.reset(self.peer, self.theirs)


def payload_bytes(messages: list[Any]) -> int:
    """The bytes of the events that these messages carry, whoever has written them."""
    total = 0
    for message in messages:
        event = message.get("event") if isinstance(message, dict) else None
        if isinstance(event, dict):
            values = (event.get(name) for name in ("text", "bytes", "body"))
            total += sum(len(value) for value in values if isinstance(value, str | bytes))
    return total
