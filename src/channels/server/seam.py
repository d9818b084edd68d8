"""The seam between the connection that owns a socket and the protocol sessions that speak on it.

The connection reads, joins writes and knows the watermarks.  A session is told what arrived and
says what to send; it never touches the transport.  HTTP hands a WebSocket upgrade to a new session
on the same outlet.
"""

from __future__ import annotations

from typing import Protocol


class Outlet(Protocol):
    """The writing half of a connection, as a session sees it."""

    @property
    def is_full(self) -> bool:
        """True while more than `write_buffer_bytes` are unsent."""

    @property
    def is_closing(self) -> bool:
        """True once closing has begun, by either side."""

    @property
    def taken_bytes(self) -> int:
        """Bytes that the peer's side has taken so far, as far as the system tells."""

    @property
    def unread_bytes(self) -> int:
        """Bytes that were written and that the peer's side has not taken."""

    @property
    def cut_reason(self) -> str | None:
        """Why the peer was cut off, in a sentence; None unless it was for what it did."""

    def write(self, data: bytes) -> None:
        """Queue bytes; what is queued in one turn of the loop leaves in one write."""

    async def drain(self) -> None:
        """Wait until the outlet is no longer full, or has closed."""

    def pause_reading(self) -> None:
        """Leave the socket unread: the peer waits."""

    def resume_reading(self) -> None:
        """Go on reading."""

    def close(self) -> None:
        """Send what is queued, then close."""

    def abort(self) -> None:
        """Close at once; what is queued is lost."""


class ProtocolSession(Protocol):
    """One protocol on one connection; the connection calls it from its loop."""

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""

    def eof_received(self) -> bool:
        """The peer will send no more; True keeps the writing half open."""

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone: tell the application, release everything."""

    async def shutdown(self, code: int, idle_seconds: float = 0.0) -> None:
        """The server stops: end in order, so that the peer knows why.

        Args:
            code: What a WebSocket is closed with.
            idle_seconds: How long an HTTP connection with no request in hand is still kept, for
                one that may be under way; its response is then the last.
        """
