"""What a process remembers over its connections: its queues, receipts, hand-overs, its marker.

The marker is a message that lies in the process's `hand` queue and is not written to disk.  If it
is still there after a reconnect, so is all else that lay in the broker.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from channels.backends.rabbitmq.names import Names
from channels.backends.rabbitmq.publisher import Mark
from channels.layers.process.window import SeenWindow

#: Pushes whose fate is remembered; four times what a node holds for replay.
_MOST_MARKS: Final = 4096


class Desk:
    """One per start of the transport.

    Attributes:
        inbox, hand: The names of this process's queues.
        former: Those that it left behind on a node of the cluster that is down.
    """

    def __init__(self, names: Names, node: str) -> None:
        self.inbox, self.hand = names.inbox(node), names.hand(node)
        self.former: set[str] = set()
        self._names = names
        self._node = node
        self._moves = itertools.count(1)
        #: Names what this process hands over to itself, and its markers.
        self.numbers = itertools.count(1)
        #: The marker that lies in the broker; "" before the first.
        self.marker = ""
        self._unsure: OrderedDict[Mark, None] = OrderedDict()
        self._stored: OrderedDict[Mark, None] = OrderedDict()
        self._moved = SeenWindow()

    def move(self) -> None:
        """Take new queues; what lay in the old ones is lost."""
        self.former |= {self.inbox, self.hand}
        node = f"{self._node}.{next(self._moves)}"
        self.inbox, self.hand = self._names.inbox(node), self._names.hand(node)
        self.marker = ""

    def note_unsure(self, marks: Iterable[Mark]) -> None:
        """The connection broke, and these may have been carried out."""
        for mark in marks:
            self._unsure[mark] = None
        while len(self._unsure) > _MOST_MARKS:
            self._unsure.popitem(last=False)

    def take_receipt(self, mark: Mark) -> None:
        if mark in self._unsure:
            del self._unsure[mark]
            self._stored[mark] = None
            if len(self._stored) > _MOST_MARKS:
                self._stored.popitem(last=False)

    def was_stored(self, mark: Mark) -> bool:
        """Whether a push that is asked for again was carried out before; forgets it."""
        return self._stored.pop(mark, self) is None

    def is_moved_again(self, number: int) -> bool:
        """Whether this hand-over has come before."""
        return self._moved.is_repeat(b"", number)
