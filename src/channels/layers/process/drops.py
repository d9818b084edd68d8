"""What is said of messages that a process has dropped, whatever the reason and the rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from channels.kit.clock import Clock

logger = logging.getLogger("channels.layers")

_LOG_SECONDS: Final = 5.0


def is_drop(statistic: str) -> bool:
    """True for the name of a count of dropped messages; one that came twice is no loss."""
    words = statistic.split("_")
    return ("dropped" in words and words[-1] != "repeated") or words[-1] == "expired"


class DropLog:
    """One line in five seconds, with the counts that have grown since the last one.

    It has no timer: whoever sends or receives a message looks whether it is `due`.

    Args:
        statistics: The counts of now.
    """

    def __init__(self, clock: Clock, statistics: Callable[[], Mapping[str, int]]) -> None:
        self._clock = clock
        self._statistics = statistics
        #: When to look again, by the clock.
        self.due = float("-inf")
        self._said: dict[str, int] = {}

    def say(self) -> None:
        """Say what is new, if anything is; it is `due` again in five seconds."""
        self.due = self._clock.monotonic() + _LOG_SECONDS
        counts = {name: count for name, count in self._statistics().items() if is_drop(name)}
        new = {name: count - self._said.get(name, 0) for name, count in counts.items()}
        self._said = counts
        grown = ", ".join(f"{name} {count}" for name, count in sorted(new.items()) if count > 0)
        if grown:
            logger.warning("The channel layer has dropped messages; new in its counts: %s", grown)
