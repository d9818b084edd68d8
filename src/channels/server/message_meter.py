"""How much one WebSocket says: messages and bytes in a second, averaged."""

from __future__ import annotations

import time

from channels.kit.allowance import RATE_SECONDS, spend
from channels.kit.limits import Limits


class MessageMeter:
    """Measures one WebSocket.

    Each message takes some seconds of its allowance, which grows again by one in each second.

    Args:
        rate: Messages a second; None: any number.
        byte_rate: Bytes a second; None: any number.
        largest: Bytes of the largest message, which may always be said.
    """

    __slots__ = ("_burst", "_byte_burst", "_byte_rate", "_bytes_whole_at", "_rate", "_whole_at")

    def __init__(self, rate: float | None, byte_rate: int | None, largest: int) -> None:
        self._rate = rate
        self._byte_rate = byte_rate
        self._burst = max(RATE_SECONDS, 1 / rate) if rate else 0.0
        self._byte_burst = max(RATE_SECONDS, largest / byte_rate) if byte_rate else 0.0
        #: When either allowance is whole again.
        self._whole_at = self._bytes_whole_at = 0.0

    def take(self, size: int) -> str:
        """Count a message of `size` bytes; what it is over, or nothing."""
        now = time.monotonic()
        if self._rate is not None:
            whole_at = spend(self._whole_at, now, 1 / self._rate, self._burst)
            if whole_at is None:
                return f"over {self._rate:g} messages a second"
            self._whole_at = whole_at
        if self._byte_rate is not None:
            whole_at = spend(self._bytes_whole_at, now, size / self._byte_rate, self._byte_burst)
            if whole_at is None:
                return f"over {self._byte_rate} bytes a second"
            self._bytes_whole_at = whole_at
        return ""


def meter_of(limits: Limits) -> MessageMeter | None:
    """A meter for the limits that are set; None if there are none."""
    rate, byte_rate = limits.max_message_rate, limits.max_message_byte_rate
    if rate is None and byte_rate is None:
        return None
    return MessageMeter(rate, byte_rate, limits.max_message_bytes or 0)
