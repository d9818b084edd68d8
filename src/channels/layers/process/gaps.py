"""Who is told that messages of groups may have been lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from channels.fanout.loop import running_loop
from channels.layers.process.owner import OwnerLoop

logger = logging.getLogger("channels.layers")

#: Told of groups (None: all) whose messages may have been lost; on the owner loop.
GapListener = Callable[[Sequence[str] | None], None]

#: Seconds in which groups with full members are gathered before they are told.
GATHER_SECONDS: Final = 1.0


class Gaps:
    """The listeners of a layer.

    Args:
        counters: Counts `gaps`.
    """

    def __init__(
        self, listeners: list[GapListener], counters: Counter[str], owner: OwnerLoop
    ) -> None:
        self._listeners = listeners
        self._counters = counters
        self._owner = owner
        self._full: dict[str, None] = {}
        #: Where a timer runs that will tell of them.
        self._timer_loop: asyncio.AbstractEventLoop | None = None

    def tell(self, groups: Sequence[str] | None) -> None:
        """Messages of these groups may have been lost."""
        self._counters["gaps"] += 1
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
        if not self._owner.post(lambda: self.tell(list(full))):
            self.tell(list(full))
