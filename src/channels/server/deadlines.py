"""The deadlines of one connection on one timer.

Most deadlines are set and cleared, or moved on, long before they pass (a pong comes, a request is
answered).  So a change costs a dictionary entry, and the loop's timer is touched only if nothing
earlier is on it; a timer that finds nothing due goes back to sleep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What a loop hands out for a call to come."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that is needed here."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...


def _tell_nobody(name: str) -> None:
    """Its connection is gone."""


class Deadlines:
    """Named moments; each that passes is named once to `on_due`."""

    __slots__ = ("_loop", "_moments", "_on_due", "_timer", "_timer_at")

    def __init__(self, loop: Timers, on_due: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_due = on_due
        self._moments: dict[str, float] = {}
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def __contains__(self, name: str) -> bool:
        return name in self._moments

    def set(self, name: str, seconds: float | None) -> None:
        """Let `name` be due in so many seconds, in place of an earlier setting; None: never."""
        if seconds is None:
            self._moments.pop(name, None)
            return
        when = self._loop.time() + seconds
        self._moments[name] = when
        if self._timer is None or when < self._timer_at:
            self._wake_at(when)

    def only(self, name: str, seconds: float | None) -> None:
        """Forget all others and `set` this one: a request costs two of these."""
        self._moments.clear()
        self.set(name, seconds)

    def clear(self, *names: str) -> None:
        """Forget these."""
        for name in names:
            self._moments.pop(name, None)

    def close(self) -> None:
        """Forget everything, release the timer, and whom it would have told."""
        self._moments.clear()
        self._on_due = _tell_nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)
        self._timer_at = when

    def _wake(self) -> None:
        self._timer = None
        # A loop may wake a little early; what is due within its resolution is due.
        now = max(self._loop.time(), self._timer_at)
        due = [name for name, when in self._moments.items() if when <= now]
        for name in due:
            # An earlier one may have cleared or moved a later one.
            if self._moments.get(name, now + 1) <= now:
                del self._moments[name]
                self._on_due(name)
        if self._moments:
            # One that was set just now may have taken the timer, and be due after others.
            first = min(self._moments.values())
            if self._timer is None or first < self._timer_at:
                self._wake_at(first)
