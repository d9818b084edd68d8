"""The garbage collector in a process that does nothing but serve.

Each connection is some dozens of long-lived containers.  By its defaults the collector looks
through the young ones after every 700 that are made and through all of them again and again: a
fifth of the cost of a delivery to 1,000 consumers, and pauses of 60 ms.  What was made before the
first connection is therefore set aside, and the collector runs less often.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Young collections between two of the middle generation, and those between two full ones.
_MIDDLE: Final = 20
_FULL: Final = 50


@contextmanager
def seldom_collected(after_objects: int | None) -> Iterator[None]:
    """Let the collector run after so many new containers; None leaves it as it is.

    It is one for the whole process: only who owns that may do this.
    """
    if after_objects is None:
        yield
        return
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(after_objects, _MIDDLE, _FULL)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
