"""Where time comes from: an argument wherever it matters, so that tests turn it by hand."""

from __future__ import annotations

import time
from typing import Protocol


def wall_ahead() -> float:
    """Seconds to add to the machine's monotonic clock for its wall clock, as that stands now."""
    return time.time() - time.monotonic()


class Clock(Protocol):
    """Seconds as floats, in the two kinds that the standard library has."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""

    def time(self) -> float:
        """Seconds since 1970, comparable between machines."""


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


class ManualClock:
    """A clock that stands still until it is told to `advance`."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`.

        Raises:
            ValueError: If it would run backwards.
        """
        if seconds < 0:
            raise ValueError(f"A clock does not run backwards: advance({seconds!r}).")
        self._now += seconds
