"""One of many like events in a time, so that a flood of them is no flood of log lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Throttle:
    """Admits one event of each key in `seconds`, and counts the others.

    Keys are kept for ever: they are the program's own words, never a client's.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        #: Key -> when the next one is admitted.
        self._next: dict[str, float] = {}
        self._held_back: Counter[str] = Counter()

    def admit(self, key: str) -> int | None:
        """How many were held back since the last one admitted; None: this one is, too."""
        now = self._clock()
        if now < self._next.get(key, float("-inf")):
            self._held_back[key] += 1
            return None
        self._next[key] = now + self._seconds
        return self._held_back.pop(key, 0)


def and_more(held_back: int) -> str:
    """The end of a log line that says how many like it were held back; empty if none were."""
    return f" ({held_back} more since the last such line)" if held_back else ""
