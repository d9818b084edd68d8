"""Ids that a reader of the log has passed without seeing: taken, but not committed yet.

An id is taken when a row is inserted and seen when that commits, so a later one may be seen first.
Missing ids are asked for again.  A hole is settled when it is filled; or when every transaction
has ended that ran when it was first noted, because what took it then was rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: An id is taken microseconds before its transaction shows in a snapshot.
GRACE_SECONDS: Final = 2.0


@dataclass(slots=True)
class _Hole:
    noted: float
    #: Transactions with this number and above began later.
    horizon: int


class Holes:
    """The missing ids of one reader.

    Args:
        most: How many may be missing at a time; more were not one message late.
    """

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self._holes: dict[int, _Hole] = {}

    def __len__(self) -> int:
        return len(self._holes)

    def missing(self, cursor: int, ids: Sequence[int]) -> list[range]:
        """What is not among these ids, in rising order, that follow `cursor`."""
        found = []
        before = cursor
        for each in ids:
            if each > before + 1:
                found.append(range(before + 1, each))
            before = each
        return found

    def note(self, missing: Iterable[range], now: float, horizon: int) -> bool:
        """Remember missing ids; False if there were too many, and the oldest are given up.

        Args:
            horizon: The next transaction's number, read after the ids.
        """
        complete = True
        for each in missing:
            if len(each) > self.most:
                complete = False
            for number in each[-self.most :]:
                self._holes[number] = _Hole(now, horizon)
        while len(self._holes) > self.most:
            del self._holes[next(iter(self._holes))]
            complete = False
        return complete

    def ids(self) -> list[int]:
        """What to ask for."""
        return list(self._holes)

    def fill(self, ids: Iterable[int]) -> None:
        """These were seen."""
        for each in ids:
            self._holes.pop(each, None)

    def settle(self, now: float, oldest: int) -> None:
        """Forget what can come no more.

        Args:
            oldest: The number of the oldest transaction that ran before the holes were last asked
                for.
        """
        for number, hole in list(self._holes.items()):
            if hole.horizon <= oldest and now - hole.noted >= GRACE_SECONDS:
                del self._holes[number]

    def clear(self) -> None:
        self._holes.clear()
