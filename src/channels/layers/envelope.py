"""What travels through a broker: a fixed header, a name, a payload.

    octets  field
    1       version: 1, or 2 if the payload is sealed
    1       attempts: in its six upper bits how often it was leased, 63 for more; the others are 0
    1       kind
    8       sender: the node that sent it
    8       sequence number, rising with each envelope of one sender
    8       deadline in milliseconds by the broker's clock, 0 for none
    2       length of the name in octets
    n       name, UTF-8: a channel's or a group's
    rest    payload: the encoded message, or what the kind says

A seal (`channels.layers.seal`) binds all of it but the attempts, which brokers change.

All numbers are in network order.  (sender, sequence number) identifies an envelope.  A sender that
lost its connection sends again what was not acknowledged, so one may arrive twice: whoever may see
that drops it by that pair (`SeenWindow`).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from channels.exceptions import MalformedEnvelope

VERSION: Final = 1
SEALED_VERSION: Final = 2
_VERSIONS: Final = (VERSION, SEALED_VERSION)
MOST_ATTEMPTS: Final = 63
_ATTEMPTS_SHIFT: Final = 2
#: Four times what a sender may hold for replay.
WINDOW: Final = 4096
#: Senders remembered; the one not heard of for longest is forgotten first.
MAX_SENDERS: Final = 4096
_MASK: Final = (1 << WINDOW) - 1

_HEAD = struct.Struct("!BBB8sQQH")


class Kind(IntEnum):
    """What an envelope asks of the node that gets it."""

    #: A message for the channel `name`.
    CHANNEL = 1
    #: A message for the group `name`.
    GROUP = 2
    #: Add a channel of yours to the group `name`; the payload says which, and whom to answer.
    ADD = 3
    #: The same for taking it out.
    DISCARD = 4
    #: The answer to ADD or DISCARD.
    DONE = 5
    #: All messages and groups were forgotten: forget yours.
    FLUSH = 6
    #: A message for the channel `name`, to be delivered later; the payload begins with when.
    LATER = 7


_KINDS: Final = {int(kind): kind for kind in Kind}


@dataclass(slots=True, eq=False, repr=False)
class Envelope:
    """One message on its way; `encoded` is made on first use and kept."""

    kind: Kind
    name: str
    payload: bytes
    sender: bytes
    seq: int
    #: Milliseconds by the broker's clock, after which it is void; 0: never.
    deadline: int = 0
    #: How often it was leased already; noted by brokers that lease.
    attempts: int = 0
    #: Whether the payload is.
    is_sealed: bool = False
    _encoded: bytes | None = field(default=None, init=False)

    def __repr__(self) -> str:
        # A name is whatever a forger has written.
        return f"<Envelope {self.kind.name} {self.name[:99]!r} {self.sender.hex()}/{self.seq}>"

    @property
    def encoded(self) -> bytes:
        """The envelope as octets."""
        if self._encoded is None:
            name = self.name.encode()
            attempts = min(self.attempts, MOST_ATTEMPTS) << _ATTEMPTS_SHIFT
            version = SEALED_VERSION if self.is_sealed else VERSION
            head = _HEAD.pack(
                version, attempts, self.kind, self.sender, self.seq, self.deadline, len(name)
            )
            self._encoded = head + name + self.payload
        return self._encoded

    @property
    def bound(self) -> bytes:
        """What a seal binds beside the payload: the head of a sealed one and the name.

        Not the attempts, which brokers change.
        """
        name = self.name.encode()
        numbers = (self.kind, self.sender, self.seq, self.deadline, len(name))
        return _HEAD.pack(SEALED_VERSION, 0, *numbers) + name

    def sealed(self, payload: bytes) -> Envelope:
        """The same envelope with this sealed payload instead of its own."""
        return replace(self, payload=payload, is_sealed=True)

    def again(self, attempts: int) -> Envelope:
        """The same envelope with another number of attempts; it may be in several queues."""
        return replace(self, attempts=attempts)

    def is_expired(self, now: float) -> bool:
        """True if its deadline has passed at `now`, in seconds by the broker's clock."""
        return self.deadline != 0 and self.deadline <= now * 1000


def decode_envelope(data: bytes) -> Envelope:
    """The envelope that these octets are.

    Raises:
        MalformedEnvelope: If they are none, or of a version that this release does not know.
    """
    try:
        version, attempts, kind, sender, seq, deadline, length = _HEAD.unpack_from(data)
        if version not in _VERSIONS:
            raise MalformedEnvelope(
                f"Found an envelope of version {version}, expected {VERSION} or {SEALED_VERSION}."
            )
        end = _HEAD.size + length
        if len(data) < end:
            raise MalformedEnvelope(f"The name of {length} octets is cut short.")
        name = data[_HEAD.size : end].decode()
        return Envelope(
            _KINDS[kind],
            name,
            data[end:],
            sender,
            seq,
            deadline,
            attempts >> _ATTEMPTS_SHIFT,
            version == SEALED_VERSION,
        )
    except MalformedEnvelope:
        raise
    except KeyError:
        raise MalformedEnvelope(f"Found an envelope of the unknown kind {kind}.") from None
    except (struct.error, ValueError) as error:
        raise MalformedEnvelope(f"{len(data)} octets are no envelope: {error}") from error


def deadline_of(data: bytes) -> int | None:
    """The deadline of an encoded envelope; None if the octets are too few to be one."""
    return _HEAD.unpack_from(data)[5] if len(data) >= _HEAD.size else None


def origin_of(data: bytes) -> tuple[bytes, int]:
    """The sender and the number of an encoded envelope, to sort by; any octets have some."""
    return data[3:11], int.from_bytes(data[11:19], "big")


class SeenWindow:
    """Tells repeated (sender, sequence number) pairs from new ones.

    Per sender the highest number is kept, and one bit for each of those below it: the anti-replay
    window of RFC 4303 section 3.4.3.
    """

    def __init__(self, max_senders: int = MAX_SENDERS) -> None:
        #: Sender -> its highest number, and a bit for each that was seen, the lowest for that one.
        self._senders: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._max_senders = max_senders

    def is_repeat(self, sender: bytes, seq: int) -> bool:
        """True if this pair was asked for before, or is too old to tell."""
        if sender not in self._senders:
            if len(self._senders) >= self._max_senders:
                self._senders.popitem(last=False)
            self._senders[sender] = (seq, 1)
            return False
        highest, bits = self._senders[sender]
        ahead = seq - highest
        if ahead > 0:
            self._senders[sender] = (seq, (bits << min(ahead, WINDOW) | 1) & _MASK)
            self._senders.move_to_end(sender)
            return False
        bit = 1 << min(-ahead, WINDOW)
        self._senders[sender] = (highest, (bits | bit) & _MASK)
        return ahead <= -WINDOW or bool(bits & bit)

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """(sender, highest number, bits) of each, the one not heard of for longest first."""
        for sender, (highest, bits) in self._senders.items():
            yield sender, highest, bits

    def restore(self, sender: bytes, highest: int, bits: int) -> None:
        """Take over what another window knew of a sender."""
        self._senders[sender] = (highest, bits & _MASK)
