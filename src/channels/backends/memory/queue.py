"""One queue of the memory engine: unread envelopes, who waits for more, and what is held back."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from channels.layers.contract import Taker
from channels.layers.envelope import Envelope

#: Octets that an unread envelope takes beside its payload: 272 by tracemalloc, and the rounding up.
ENVELOPE_OCTETS: Final = 400


def envelope_octets(envelope: Envelope) -> int:
    """What an unread envelope takes."""
    return ENVELOPE_OCTETS + len(envelope.payload)


@dataclass(slots=True)
class Demand:
    """How many a reader takes, for how long each is leased, and who is told of it."""

    count: int
    seconds: float
    #: Called under the engine's lock.
    taker: Taker


@dataclass(slots=True)
class Queue:
    """The unread envelopes of one channel and who waits for more."""

    envelopes: deque[Envelope] = field(default_factory=deque)
    #: By reader; served in turn.
    demands: OrderedDict[object, Demand] = field(default_factory=OrderedDict)


@dataclass(slots=True)
class Held:
    """An envelope that is not in its queue now and enters it when it is due."""

    queue: str
    envelope: Envelope
    #: Monotonic seconds.
    due: float
    #: Has it on lease; None: it is delayed, or released for later.
    reader: object = None
    #: It was never in its queue.
    is_delayed: bool = False

    def count_attempt(self) -> None:
        """Count the lease that ends.  On a copy: the envelope may be in several queues."""
        self.envelope = self.envelope.again(self.envelope.attempts + 1)
