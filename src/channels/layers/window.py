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
        #: Sender -> [highest number, bits: the lowest is the highest number's].
        self._senders: OrderedDict[bytes, list[int]] = OrderedDict()
        self._max_senders = max_senders

    def is_repeat(self, sender: bytes, seq: int) -> bool:
        """True if this pair was asked for before, or is too old to tell."""
        entry = self._senders.get(sender)
        if entry is None:
            if len(self._senders) >= self._max_senders:
                self._senders.popitem(last=False)
            self._senders[sender] = [seq, 1]
            return False
        ahead = seq - entry[0]
        if ahead > 0:
            entry[0] = seq
            entry[1] = ((entry[1] << ahead) | 1) & _MASK if ahead < WINDOW else 1
            self._senders.move_to_end(sender)
            return False
        if ahead <= -WINDOW:
            return True
        bit = 1 << -ahead
        if entry[1] & bit:
            return True
        entry[1] |= bit
        return False

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """(sender, highest number, bits) of each, the one not heard of for longest first."""
        for sender, (highest, bits) in self._senders.items():
            yield sender, highest, bits

    def restore(self, sender: bytes, highest: int, bits: int) -> None:
        """Take over what another window knew of a sender."""
        self._senders[sender] = [highest, bits & _MASK]
