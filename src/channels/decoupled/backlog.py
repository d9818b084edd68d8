"""A client's events that no worker has acknowledged, kept by the edge."""

from __future__ import annotations

from collections.abc import Iterator

from channels.decoupled.messages import size_of
from channels.kit.types import Message

#: After one of these a client says nothing more.
LAST_EVENTS = frozenset({"websocket.disconnect", "http.disconnect"})


class EventBacklog:
    """Events in order, each with its sequence number.

    Args:
        most_events: After so many the socket is left unread.
        most_bytes: Or so many bytes.
    """

    __slots__ = ("_bytes", "_events", "_most_bytes", "_most_events", "sequence")

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self._most_events = most_events
        self._most_bytes = most_bytes
        # Empty while the connection is idle: a deque would take 0.7 KiB more.
        self._events: list[tuple[int, Message, int]] = []
        self._bytes = 0
        #: The number of the last event.
        self.sequence = 0

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[tuple[int, Message, int]]:
        """Each with its number and its size."""
        return iter(self._events)

    @property
    def is_full(self) -> bool:
        """True while no more should be read."""
        return len(self._events) >= self._most_events or self._bytes >= self._most_bytes

    @property
    def acknowledged(self) -> int:
        """The number of the last event that is not kept any more."""
        return self._events[0][0] - 1 if self._events else self.sequence

    @property
    def has_last(self) -> bool:
        """True if the client's last event is kept."""
        return bool(self._events) and self._events[-1][1]["type"] in LAST_EVENTS

    def put(self, event: Message) -> int:
        """Add an event; returns its size."""
        size = size_of(event)
        self.sequence += 1
        self._events.append((self.sequence, event, size))
        self._bytes += size
        return size

    def acknowledge(self, sequence: int) -> None:
        """Forget the events up to this number."""
        while self._events and self._events[0][0] <= sequence:
            self._bytes -= self._events.pop(0)[2]

    def drop(self) -> int:
        """Forget all but the client's last event; returns how many were dropped."""
        dropped = len(self._events) - self.has_last
        self.acknowledge(self.sequence - self.has_last)
        return dropped

    def clear(self) -> None:
        """Forget everything."""
        self.acknowledge(self.sequence)
