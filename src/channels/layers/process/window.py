"""Which envelopes of a sender were seen already.

A sender that lost its connection sends again what was not acknowledged, so an envelope may arrive
twice.  Per sender the highest sequence number is kept, and one bit for each of those below it: the
anti-replay window of RFC 4303 section 3.4.3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

#: Four times what a sender may hold for replay.
WINDOW: Final = 4096
#: Senders remembered; the one not heard of for longest is forgotten first.
MAX_SENDERS: Final = 4096
_MASK: Final = (1 << WINDOW) - 1


class SeenWindow:
    """Tells repeated (sender, sequence number) pairs from new ones."""

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
