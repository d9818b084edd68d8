"""The garbage collector in a process that does nothing but serve.

Each connection is some dozens of long-lived containers.  By its defaults the collector looks
through the young ones after every 700 that are made and through all of them again and again: a
fifth of the cost of a delivery to 1,000 consumers, and pauses of 60 ms.  What was made before the
first connection is therefore set aside, and the collector runs less often.

An application's reference cycle may hold a body (Django's error handling makes one that holds the
request), and 10,000 containers may be a gigabyte.  So the octets of bodies that may be in cycles
are bounded as well.  Those of a request that began after the last collection are garbage of the
young or the middle generation, which together are cheap to look through.  Those of one that a
collection found running have been moved to the old generation, where only a full collection finds
them: it runs when they alone reach the bound, and takes at most one part in `_FULL_SHARE` of the
time.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

#: Young collections between two of the middle generation, and those between two full ones.
_MIDDLE: Final = 20
_FULL: Final = 50
_FULL_SHARE: Final = 20
_OLDEST: Final = 2

#: Smaller ones need not be counted: the bound on objects holds for them, and most have none.
COUNTED_FROM_BYTES: Final = 4096


class Garbage:
    """When the collector runs; without an owner of the process, as Python has it.

    Args:
        after_objects: New containers after which it runs; None for Python's own thresholds.
        after_bytes: Octets of bodies after which it runs; None for any number.
    """

    def __init__(self, after_objects: int | None = None, after_bytes: int | None = None) -> None:
        self._after_objects = after_objects
        self._after_bytes = after_bytes
        self._is_ours = False
        # Octets that ended since the last collection: of requests that began after it, and others.
        # A collection on another thread may set them to 0 in between, which loses one count.
        self._young = 0
        self._old = 0
        self._collected_at = 0.0
        self._full_from = 0.0
        self._due: asyncio.Handle | None = None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Decide when the collector runs, meanwhile.

        It is one for the whole process: only who owns that may do this.
        """
        before = gc.get_threshold()
        if self._after_objects is not None:
            gc.collect()
            gc.freeze()
            gc.set_threshold(self._after_objects, _MIDDLE, _FULL)
        self._is_ours = self._after_bytes is not None
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            gc.callbacks.remove(self._on_collection)
            self._is_ours = False
            if self._after_objects is not None:
                gc.set_threshold(*before)
                gc.unfreeze()

    def add(self, octets: int, began: float, loop: asyncio.AbstractEventLoop) -> None:
        """Count the bodies of a request or message that is over; collect soon if it is due.

        Args:
            began: When the first of them came into being, by the loop's clock.
        """
        if not self._is_ours:
            return
        if began > self._collected_at:
            self._young += octets
        else:
            self._old += octets
        if self._due is None and self._is_due(max(self._young, self._old)):
            # Later: what has just ended is still in use by its callers.
            self._due = loop.call_soon(self._collect, loop)

    def _is_due(self, octets: int) -> bool:
        return self._after_bytes is not None and octets >= self._after_bytes

    def _collect(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = None
        began = time.monotonic()
        if self._is_due(self._old) and began >= self._full_from:
            gc.collect()
            ended = time.monotonic()
            self._full_from = ended + (ended - began) * _FULL_SHARE
        elif self._is_due(self._young):
            gc.collect(_OLDEST - 1)
        if self._is_due(self._old):
            self._due = loop.call_later(self._full_from - began, self._collect, loop)

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        generation = info["generation"]
        if phase == "stop" and generation > 0:
            self._collected_at = time.monotonic()
            self._young = 0
            if generation == _OLDEST:
                self._old = 0
