"""What a process's end of a layer counts, and who is told of messages that were lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from channels.fanout.delivery import running_loop
from channels.kit.clock import Clock
from channels.kit.printable import printable
from channels.layers.process.owner import OwnerLoop
from channels.layers.seal import UnauthenticEnvelope

logger = logging.getLogger("channels.layers")

#: Told of groups (None: all) whose messages may have been lost; on the owner loop.
GapListener = Callable[[Sequence[str] | None], None]

#: Seconds in which groups with full members are gathered before they are told.
GATHER_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 5.0
#: Of what cannot be read the first is logged, and each that comes after so many.
_UNREADABLE: Final = 1000


def is_drop(statistic: str) -> bool:
    """True for the name of a count of dropped messages; one that came twice is no loss."""
    words = statistic.split("_")
    return ("dropped" in words and words[-1] != "repeated") or words[-1] == "expired"


class Losses:
    """Counters, one log line in five seconds on those of drops, and listeners for gaps.

    The line has no timer: whoever sends or receives a message looks whether it is due.

    Args:
        statistics: All counts of now, those of others too.
    """

    def __init__(
        self,
        clock: Clock,
        statistics: Callable[[], Mapping[str, int]],
        listeners: Sequence[GapListener],
        owner: OwnerLoop,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._statistics = statistics
        self._listeners = listeners
        self._owner = owner
        #: When to look again, by the clock.
        self.due = float("-inf")
        self._said: dict[str, int] = {}
        self._full: dict[str, None] = {}
        #: Where a timer runs that will tell of them.
        self._timer_loop: asyncio.AbstractEventLoop | None = None

    def say(self) -> None:
        """Say which drops are new, if any are; it is `due` again in five seconds."""
        self.due = self._clock.monotonic() + _LOG_SECONDS
        counts = {name: count for name, count in self._statistics().items() if is_drop(name)}
        new = {name: count - self._said.get(name, 0) for name, count in counts.items()}
        self._said = counts
        grown = ", ".join(f"{name} {count}" for name, count in sorted(new.items()) if count > 0)
        if grown:
            logger.warning("The channel layer has dropped messages; new in its counts: %s", grown)

    def unreadable(self, error: Exception) -> None:
        """Count a message that cannot be read, or opened."""
        is_forged = isinstance(error, UnauthenticEnvelope)
        name = "dropped_unauthentic" if is_forged else "dropped_malformed"
        self.counters[name] += 1
        if self.counters[name] % _UNREADABLE == 1:
            logger.warning("Dropped a message that cannot be read: %s", printable(str(error)))
        if self._clock.monotonic() >= self.due:
            self.say()

    def tell_gap(self, groups: Sequence[str] | None) -> None:
        """Messages of these groups may have been lost; on the owner loop."""
        self.counters["gaps"] += 1
        for listener in self._listeners:
            try:
                listener(groups)
            except Exception:
                logger.exception("A listener for gaps failed")

    def note_full(self, group: str) -> None:
        """Members in this process were full and missed a message; any thread.

        Told within a second, all groups together: a flood must not become one of gaps.
        """
        if not self._listeners:
            return
        self._full[group] = None
        loop, timer_loop = running_loop(), self._timer_loop
        if loop is not None and (timer_loop is None or timer_loop.is_closed()):
            self._timer_loop = loop
            loop.call_later(GATHER_SECONDS, self._tell_full)

    def _tell_full(self) -> None:
        self._timer_loop = None
        full, self._full = self._full, {}
        # A direct layer has no owner loop: then on this one.
        if not self._owner.post(lambda: self.tell_gap(list(full))):
            self.tell_gap(list(full))
