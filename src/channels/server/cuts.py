"""Connections that the server cuts off: counted by reason, and logged.

A flood of bad clients must not become a flood of lines: one line for each reason in `LOG_SECONDS`,
with the number of those that had none.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from channels.kit.types import Address
from channels.server.access_log import client_text
from channels.server.counts import counts

logger: Final = logging.getLogger("django.channels.server")

LOG_SECONDS: Final = 5.0


class CutLog:
    """One line for each reason in `LOG_SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Reason -> when the next line may be written; reasons are the server's own words.
        self._next: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()

    def report(self, reason: str, client: Address | None, why: str) -> None:
        """Log that a client was cut off, or count it for the reason's next line."""
        now = self._clock()
        if now < self._next.get(reason, 0.0):
            self._unlogged[reason] += 1
            return
        self._next[reason] = now + LOG_SECONDS
        earlier = self._unlogged.pop(reason, 0)
        more = f" ({earlier} more since the last such line)" if earlier else ""
        logger.warning("Cut off %s: %s%s", client_text(client), why, more)


_log: Final = CutLog()


def cut_off(reason: str, client: Address | None, why: str) -> None:
    """Count a connection that is cut off, and log it.

    Args:
        reason: The label in the metrics.
        why: For the log: what the client did, and the bound.
    """
    counts.cut[reason] += 1
    _log.report(reason, client, why)
