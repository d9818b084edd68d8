"""What the servers of this process have done since it began, for the metrics."""

from __future__ import annotations

from collections import Counter
from typing import Final

from channels.server.access import Kind

#: A client chooses close codes, an application statuses: so many are told apart, the rest is one.
MOST_LABELS: Final = 100
OTHER: Final = "other"


class ServerCounts:
    """Counts that only grow.  Those by a status or a close code have it as text: "404", "1001"."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.connections_ended = 0
        #: Answered with 503 at once, because there were `max_connections`.
        self.connections_refused = 0
        #: HTTP responses by status; "none" where the client went, or was cut off, before one.
        self.responses: Counter[str] = Counter()
        self.websockets_opened = 0
        #: Handshakes that were refused, by status.
        self.websockets_refused: Counter[str] = Counter()
        #: WebSockets that were open, by close code; 1006 where there was no close frame.
        self.websockets_closed: Counter[str] = Counter()
        #: Connections that were cut off, by reason.
        self.cut: Counter[str] = Counter()
        #: Lines that an output did not take, by its name.
        self.log_lines_dropped: Counter[str] = Counter()
        #: Applications that raised, or ended without an answer.
        self.application_failures = 0

    def on_access(self, kind: Kind, status: int | None) -> None:
        """An event as the access log has it."""
        if kind == "http":
            _count(self.responses, status)
        elif kind == "websocket.connected":
            self.websockets_opened += 1
        elif kind == "websocket.rejected":
            _count(self.websockets_refused, status)

    def on_websocket_closed(self, code: int) -> None:
        """A WebSocket that was open is over."""
        _count(self.websockets_closed, code)


def _count(counter: Counter[str], value: int | None) -> None:
    label = str(value) if value else "none"
    counter[label if label in counter or len(counter) < MOST_LABELS else OTHER] += 1


#: Those of this process, all its servers together.
counts: Final = ServerCounts()
