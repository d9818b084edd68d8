"""Histograms of times, which are measured only once somebody wants to see metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from channels.kit.families import Family

#: Upper bounds of the buckets, in seconds; the last bucket has none.
BOUNDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
#: Label sets of one histogram that are told apart; all others are one.
MOST_LABEL_SETS: Final = 200
OTHER: Final = "other"


class Measuring:
    """Whether times are measured in this process; they are from the first `begin` on."""

    def __init__(self) -> None:
        self.is_on = False
        self._followers: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Measure from now on; from any thread, any number of times."""
        if not self.is_on:
            self.is_on = True
            for follower in [*self._followers]:
                follower()

    def follow(self, follower: Callable[[], object]) -> None:
        """Call `follower` when measuring begins, on the thread that begins it; now if it has."""
        self._followers.append(follower)
        if self.is_on:
            follower()

    def unfollow(self, follower: Callable[[], object]) -> None:
        """Take back `follow`."""
        if follower in self._followers:
            self._followers.remove(follower)


#: Of this process.
measuring: Final = Measuring()


def add_time(values: list[float], seconds: float) -> None:
    """Count a time in a histogram of `Histograms`."""
    values[bisect_left(BOUNDS, seconds)] += 1
    values[-1] += max(0.0, seconds)


class Histograms:
    """A histogram for each set of values of some labels.

    Each is a list: the counts of its buckets, and the sum of its times last.
    """

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name = name
        self._help = text
        self._labels = labels
        self._found: dict[tuple[str, ...], list[float]] = {}

    def of(self, *values: str) -> list[float]:
        """The histogram of a label set; beyond MOST_LABEL_SETS all have one in common."""
        found = self._found.get(values)
        if found is None:
            if len(self._found) >= MOST_LABEL_SETS:
                values = (OTHER,) * len(self._labels)
            found = self._found.setdefault(values, [0] * (len(BOUNDS) + 2))
        return found

    def family(self) -> Family:
        """All of them, for the metrics; from any thread."""
        samples = {values: [*each] for values, each in [*self._found.items()]}
        return Family(self._name, "histogram", self._help, self._labels, samples)
