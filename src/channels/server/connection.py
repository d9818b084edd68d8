"""The connection: it owns the socket, joins writes, and knows when the peer does not read.

Close order: what is queued is written; our half is closed; the session hears `connection_lost`
once, from the loop, and whoever waits in `drain` wakes.  A peer that takes nothing for
`write_timeout` seconds, while more than the write buffer's bound waits or the connection is
closing, is cut off: else it would hold the bytes and the application for ever.  However slowly it
reads, it is not cut off while it does; it then holds at most the write buffer's bound, one piece
that was written over it, and what its application keeps (`http_timeout` bounds the time of that).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol, cast

from channels.server.cuts import cut_off
from channels.server.options import ServerOptions
from channels.server.peer import Peer, peer_of
from channels.server.seam import ProtocolSession
from channels.server.turns import TurnEnds
from channels.server.waiters import Waiters
from channels.server.write_watch import WriteWatch, bytes_in_system

#: A client that is still sending when it has been answered would lose the answer to a reset, so its
#: bytes are read and dropped: for so long, and so many.
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 4 * 1024 * 1024


#: SO_LINGER on, for no time.
_NO_GOODBYE: Final = struct.pack("ii", 1, 0)


class ConnectionHost(Protocol):
    """The server, as its connections see it."""

    @property
    def options(self) -> ServerOptions:
        """The server's options."""

    def connected(self, connection: Connection) -> ProtocolSession | None:
        """A session for a new connection; None if there are too many, and it has been answered."""

    def disconnected(self, connection: Connection) -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One socket and the session that speaks on it; the `Outlet` of that session."""

    __slots__ = (
        "__weakref__",
        "_got_eof",
        "_high",
        "_host",
        "_is_paused",
        "_linger",
        "_linger_left",
        "_loop",
        "_pending",
        "_pending_bytes",
        "_reads",
        "_session",
        "_transport",
        "_turn_bytes",
        "_turn_end_is_due",
        "_turns",
        "_waiters",
        "_watch",
        "_write_timeout",
        "_written",
        "cut_reason",
        "is_closing",
        "on_room",
        "peer",
    )

    def __init__(
        self, host: ConnectionHost, loop: asyncio.AbstractEventLoop, turns: TurnEnds | None = None
    ) -> None:
        self._host = host
        self._loop = loop
        #: Shared by all connections of the loop.
        self._turns = turns or TurnEnds(loop)
        self._high = host.options.limits.write_buffer_bytes
        self._write_timeout = host.options.timeouts.write_timeout
        self._transport: asyncio.Transport | None = None
        self._session: ProtocolSession | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._written = 0
        self._turn_bytes = 0
        self._turn_end_is_due = False
        self._is_paused = False
        #: True once closing has begun, by either side.
        self.is_closing = False
        #: Why we cut the client off, in a sentence; None unless we did.
        self.cut_reason: str | None = None
        self._reads = True
        self._got_eof = False
        self._linger_left = 0
        self._waiters = Waiters(self._loop)
        self._watch: WriteWatch | None = None
        self._linger: asyncio.TimerHandle | None = None
        #: Called when there is room again after it was full; of a session with many senders.
        self.on_room: Callable[[], None] | None = None
        self.peer = Peer(None, None)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have another base class.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=self._high)
        self.peer = peer_of(transport)
        self._session = self._host.connected(self)

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._session.data_received(data)
        elif self._linger is not None:
            self._linger_left -= len(data)
            if self._linger_left <= 0:
                self._end_linger()

    def eof_received(self) -> bool:
        self._got_eof = True
        if self._linger is not None:
            self._end_linger()
        # TLS has no half-close that asyncio can keep open.
        keeps_open = self._session is not None and self._session.eof_received()
        return keeps_open and not self.peer.is_secure

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._transport = None
        self._pending.clear()
        self._wake()
        if self._watch is not None:
            self._watch.stop()
        if self._linger is not None:
            self._linger.cancel()
        self._watch = self._linger = None
        session, self._session = self._session, None
        if session is not None:
            session.connection_lost(exc)
        self._host.disconnected(self)

    def pause_writing(self) -> None:
        self._is_paused = True
        self._watch_writes()

    def resume_writing(self) -> None:
        self._is_paused = False
        if not self.is_closing and self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._wake()

    # What the session calls: the outlet.

    @property
    def session(self) -> ProtocolSession | None:
        """Who speaks here; None once it is over."""
        return self._session

    def switch(self, session: ProtocolSession, data: bytes) -> None:
        """Hand the connection over to another session, with what was received for it."""
        self._session = session
        if data:
            session.data_received(data)

    @property
    def is_full(self) -> bool:
        # A sender that waits for nothing else must still let the loop turn: it hears there that the
        # peer has gone, and others are served.
        return self._is_paused or self._turn_bytes >= self._high

    @property
    def taken_bytes(self) -> int:
        if self._transport is None:
            return self._written
        handed, in_system = self._position()
        return handed - in_system

    @property
    def unread_bytes(self) -> int:
        return self._pending_bytes + self._written - self.taken_bytes

    def write(self, data: bytes) -> None:
        if self.is_closing or not data:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._turn_bytes += len(data)
        if self._pending_bytes >= self._high:
            self._flush()
        if not self._turn_end_is_due:
            self._turn_end_is_due = True
            self._turns.add(self)

    def end_turn(self) -> None:
        """Write what was queued in the turn that is over."""
        self._turn_end_is_due = False
        self._flush()
        if self._turn_bytes >= self._high and not self._is_paused:
            self._wake()
        self._turn_bytes = 0

    def _flush(self) -> None:
        pending = self._pending
        if not pending or self._transport is None:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._pending_bytes = 0
        self._written += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        while self.is_full and not self.is_closing:
            await self._waiters.wait()

    def _wake(self) -> None:
        self._waiters.wake()
        if self.on_room is not None:
            self.on_room()

    def pause_reading(self) -> None:
        if self._reads and self._transport is not None and not self.is_closing:
            self._reads = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reads and self._transport is not None and not self.is_closing:
            self._reads = True
            self._transport.resume_reading()

    def close(self) -> None:
        if self.is_closing or self._transport is None:
            return
        self._flush()
        self.is_closing = True
        self._wake()
        self._transport.close()
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._watch_writes()

    def linger(self) -> None:
        """Close, but read and drop for a moment what the peer is still sending.

        The session hears `connection_lost` at once: nothing that arrives is its concern any more.
        """
        transport = self._transport
        if self.is_closing or transport is None:
            return
        if self._got_eof or not transport.can_write_eof():
            self.close()
            return
        self._flush()
        self.resume_reading()
        self.is_closing = True
        self._wake()
        transport.write_eof()
        self._linger_left = LINGER_BYTES
        self._linger = self._loop.call_later(LINGER_SECONDS, self._end_linger)
        self._watch_writes()
        session, self._session = self._session, None
        if session is not None:
            session.connection_lost(None)

    def _end_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        transport = self._transport
        if transport is None:
            return
        self.is_closing = True
        self._wake()
        sock = transport.get_extra_info("socket")
        if sock is not None and not self.peer.is_unix:
            # A reset in place of a goodbye: what was cut must not look like an end.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_GOODBYE)
        transport.abort()

    # A peer that does not read.

    def _watch_writes(self) -> None:
        if self._watch is None and self._write_timeout is not None:
            self._watch = WriteWatch(
                self._loop, self._write_timeout, self._position, self._on_stall
            )

    def _position(self) -> tuple[int, int]:
        assert self._transport is not None, "the watch ends with the transport"
        handed = self._written - self._transport.get_write_buffer_size()
        return handed, bytes_in_system(self._transport.get_extra_info("socket"))

    def _on_stall(self, seconds: float) -> None:
        self._watch = None
        assert self._transport is not None, "the watch ends with the transport"
        if self._transport.get_write_buffer_size() == 0:
            # Only the system holds anything for it.
            self._watch_writes()
            return
        waiting = self.unread_bytes
        self.cut_reason = f"The client read too slowly: {waiting} bytes waited for {seconds:.3g} s."
        cut_off("not_reading", self.peer.client, self.cut_reason)
        self.abort()
