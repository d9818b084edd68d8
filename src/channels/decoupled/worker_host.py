"""What the worker does for one of its connections."""

from __future__ import annotations

from typing import Any, Protocol

from channels.decoupled.options import ConnectionWorkerOptions


class WorkerHost(Protocol):
    """The worker, as a WorkerConnection sees it; `connection` is that one."""

    options: ConnectionWorkerOptions

    def post(self, connection: Any, kind: str, size: int = 0, **fields: Any) -> None:
        """Send a message on this connection to its edge."""

    def has_room(self, edge: str) -> bool:
        """False while too much waits for this edge."""

    def ended(self, connection: Any) -> None:
        """Its application has ended, or it is another worker's."""
