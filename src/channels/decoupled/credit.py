"""How many of an owner's events the client's socket has taken, as the edge tells it."""

from __future__ import annotations


class Credit:
    """Counts what the socket has taken, and says when the owner should be told.

    Args:
        most_events: What the owner may have on its way; it is told after a fourth of that.
        most_bytes: The same in bytes.
    """

    __slots__ = ("_bytes", "_count", "_most_bytes", "_most_events", "_told")

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        self.restart()

    def restart(self) -> None:
        """Another owner begins to count."""
        self._count = self._told = self._bytes = 0

    def taken(self, size: int) -> int | None:
        """Note one more event; the count, if the owner should be told now."""
        self._count += 1
        self._bytes += size
        is_due = self._count - self._told >= self._most_events // 4
        if not is_due and self._bytes < self._most_bytes // 4:
            return None
        self._told, self._bytes = self._count, 0
        return self._count
