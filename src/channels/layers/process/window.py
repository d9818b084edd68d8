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
#: Rising numbers that are noted one by one before their bits are set: to shift all of a window for
#: each takes 0.5 µs, this 0.1.
_NOTED: Final = 64


class _Sender:
    """The highest number of a sender, and which below it were seen."""

    __slots__ = ("_bits", "_top", "highest", "noted")

    def __init__(self, highest: int, bits: int) -> None:
        self.highest = highest
        #: What came after `_top`, whose bit is the lowest; each was higher than all before.
        self.noted: list[int] = []
        self._top = highest
        self._bits = bits

    def bits(self) -> int:
        """One for each number that was seen; the lowest is the highest number's."""
        if self.noted:
            highest, recent = self.highest, 0
            for seq in self.noted:
                if highest - seq < WINDOW:
                    recent |= 1 << highest - seq
            self.noted.clear()
            ahead = highest - self._top
            kept = self._bits << ahead if ahead < WINDOW else 0
            self._top, self._bits = highest, (kept | recent) & _MASK
        return self._bits

    def is_repeat(self, seq: int) -> bool:
        """The same for one that is not higher."""
        behind = self.highest - seq
        if behind >= WINDOW:
            return True
        bits, bit = self.bits(), 1 << behind
        self._bits = bits | bit
        return bool(bits & bit)


class SeenWindow:
    """Tells repeated (sender, sequence number) pairs from new ones."""

    def __init__(self, max_senders: int = MAX_SENDERS) -> None:
        self._senders: OrderedDict[bytes, _Sender] = OrderedDict()
        self._max_senders = max_senders

    def is_repeat(self, sender: bytes, seq: int) -> bool:
        """True if this pair was asked for before, or is too old to tell."""
        entry = self._senders.get(sender)
        if entry is None:
            if len(self._senders) >= self._max_senders:
                self._senders.popitem(last=False)
            self._senders[sender] = _Sender(seq, 1)
            return False
        if seq > entry.highest:
            entry.highest = seq
            entry.noted.append(seq)
            if len(entry.noted) >= _NOTED:
                entry.bits()
            self._senders.move_to_end(sender)
            return False
        return entry.is_repeat(seq)

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """(sender, highest number, bits) of each, the one not heard of for longest first."""
        for sender, entry in self._senders.items():
            yield sender, entry.highest, entry.bits()

    def restore(self, sender: bytes, highest: int, bits: int) -> None:
        """Take over what another window knew of a sender."""
        self._senders[sender] = _Sender(highest, bits & _MASK)
