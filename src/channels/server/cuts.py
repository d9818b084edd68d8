"""Connections that the server cuts off: counted by reason, and logged."""

from __future__ import annotations

import logging
from typing import Final

from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Address
from channels.server.access_log import client_text
from channels.server.counts import counts

logger: Final = logging.getLogger("django.channels.server")

#: One line for each reason in so many seconds: a flood of bad clients is none of lines.
LOG_SECONDS: Final = 5.0

_throttle: Final = Throttle(LOG_SECONDS)


def cut_off(
    reason: str, client: Address | None, why: str, throttle: Throttle | None = None
) -> None:
    """Count a connection that is cut off, and log it.

    Args:
        reason: The label in the metrics.
        why: For the log: what the client did, and the bound.
    """
    counts.cut[reason] += 1
    held_back = (throttle or _throttle).admit(reason)
    if held_back is not None:
        logger.warning("Cut off %s: %s%s", client_text(client), why, and_more(held_back))
