"""What the edge does for one of its connections."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from channels.decoupled.options import EdgeOptions
from channels.kit.mailbox import Mailbox, MailboxBounds


class EdgeHost(Protocol):
    """The edge, as an EdgeConnection sees it; `connection` is that one."""

    options: EdgeOptions
    counters: Counter[str]
    bounds: MailboxBounds

    def post(self, connection: Any, kind: str, size: int = 0, **fields: Any) -> None:
        """Send a message on this connection to its owner."""

    def has_room(self, owner: str) -> bool:
        """False while too much waits for this worker."""

    def offer(self, connection: Any) -> None:
        """Let a worker take the connection."""

    def disown(self, connection: Any) -> None:
        """No worker has it any more."""

    def attach(self, connection: Any, mailbox: Mailbox, sink: Any) -> None:
        """Deliver what is sent to the socket's channel."""

    def forget(self, connection: Any) -> None:
        """Nothing is left to be done for it."""
