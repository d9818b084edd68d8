"""One stream of an HTTP/2 connection, as the outlet of the session that speaks on it.

It is to its session what a connection's socket is in HTTP/1.1: what is written waits for the
client's windows, and `drain` with it; while reading is paused nothing is acknowledged, so that the
client can send no more than its window.

Close order: the head and what is queued are sent, then END_STREAM; the session hears
`connection_lost` from the loop; a client that has not ended its half is told that nobody reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from channels.kit.types import HeaderPairs, Headers
from channels.server.peer import Peer
from channels.server.seam import Outlet, ProtocolSession
from channels.server.waiters import Waiters
from channels.wire.http2.response import StreamResponse
from channels.wire.response import ResponseBody

#: RFC 9113 section 7.
NO_ERROR: Final = 0
INTERNAL_ERROR: Final = 2
PROTOCOL_ERROR: Final = 1
CANCEL: Final = 8

#: How long a client that was told the end of a WebSocket's stream may take to end its half.
LINGER_SECONDS: Final = 2.0
#: What one stream sends before others have their turn.
TURN_BYTES: Final = 64 * 1024


class StreamMachine(Protocol):
    """The protocol machine, as far as a stream needs it; what is sent on a lost stream is void."""

    def send_head(self, stream_id: int, fields: Headers, *, has_ended: bool) -> None: ...

    def sendable(self, stream_id: int, size: int) -> int: ...

    def send_data(self, stream_id: int, data: bytes, *, has_ended: bool) -> None: ...

    def reset(self, stream_id: int, code: int) -> None: ...

    def acknowledge(self, stream_id: int, credit: int) -> None: ...


class StreamOwner(Protocol):
    """The connection's session, as its streams see it."""

    loop: asyncio.AbstractEventLoop
    write_buffer_bytes: int
    read_piece_bytes: int

    @property
    def machine(self) -> StreamMachine:
        """The connection's machine."""

    @property
    def outlet(self) -> Outlet:
        """Of the connection."""

    def is_due(self, stream: StreamOutlet) -> None:
        """Something is to be sent: call `stream.send_some` at the end of this turn."""

    def write_soon(self) -> None:
        """The machine has something to send."""

    def ended(self, stream: StreamOutlet) -> None:
        """Nothing more is sent on the stream, and nothing that comes is used."""


class StreamOutlet:
    """The outlet of one stream."""

    __slots__ = (
        "_credit",
        "_delivered",
        "_ends",
        "_fields",
        "_input_ended",
        "_is_lost",
        "_is_sent",
        "_linger",
        "_owner",
        "_queue",
        "_queued",
        "_reads",
        "_reset_code",
        "_sent",
        "_trailers",
        "_unread",
        "_waiters",
        "blocked_at",
        "cut_reason",
        "is_closing",
        "is_queued",
        "peer",
        "session",
        "stream_id",
    )

    def __init__(self, owner: StreamOwner, stream_id: int, peer: Peer) -> None:
        self._owner = owner
        self.stream_id = stream_id
        self.peer = peer
        #: Who speaks here; None once it is over.
        self.session: ProtocolSession | None = None
        #: Why we cut the stream off, in a sentence; None unless we did.
        self.cut_reason: str | None = None
        #: True once closing has begun, by either side.
        self.is_closing = False
        #: True while its turn to send is awaited; of its owner.
        self.is_queued = False
        #: When the client's windows began to hold up what is queued; None while they do not.
        self.blocked_at: float | None = None
        self._fields: Headers | None = None
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._sent = 0
        self._trailers: Headers = []
        self._ends = False
        self._is_sent = False
        self._reset_code: int | None = None
        self._is_lost = False
        #: One piece, since a window's worth of frames of one octet would take a hundred times it.
        self._unread = bytearray()
        #: What the windows have counted, and what of it the session has got, unacknowledged.
        self._credit = 0
        self._delivered = 0
        self._reads = True
        self._input_ended = False
        self._waiters = Waiters(owner.loop)
        self._linger: asyncio.TimerHandle | None = None

    # What the connection's session calls.

    def data_received(self, data: bytes, credit: int) -> None:
        """Bytes came in; the client's windows count `credit` for them."""
        self._credit += credit
        self._unread += data
        self._deliver()

    def eof_received(self) -> None:
        """The client sends no more on this stream."""
        self._input_ended = True
        self._deliver()

    def connection_lost(self, error: Exception | None) -> None:
        """The stream is gone, by the client's doing or with its connection."""
        self._release()
        self._lose_session(error)

    def _release(self) -> None:
        self._is_lost = self.is_closing = True
        self._queue.clear()
        self._queued = 0
        self._unread.clear()
        self._acknowledge()
        self._waiters.wake()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _lose_session(self, error: Exception | None = None) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.connection_lost(error)

    def send_some(self) -> bool:
        """Send what the windows allow, in turns; True if more can be sent at once."""
        machine, stream_id = self._owner.machine, self.stream_id
        if self._is_lost:
            return False
        if self._fields is not None:
            fields, self._fields = self._fields, None
            has_ended = self._ends_with_data and not self._queue
            machine.send_head(stream_id, fields, has_ended=has_ended)
            self._is_sent = has_ended
        sent = 0
        while self._queue and sent < TURN_BYTES:
            size = machine.sendable(stream_id, self._queued)
            if size == 0:
                self._block()
                return False
            piece = self._take(size)
            sent += len(piece)
            has_ended = self._ends_with_data and not self._queue
            machine.send_data(stream_id, piece, has_ended=has_ended)
            self._is_sent = has_ended
        if sent:
            self.blocked_at = None
            self._sent += sent
        if self._queue:
            return True
        if self._ends and not self._is_sent:
            if self._ends_with_data:
                machine.send_data(stream_id, b"", has_ended=True)
            elif self._ends_well:
                machine.send_head(stream_id, self._trailers, has_ended=True)
            self._is_sent = True
        if not self.is_full:
            self._waiters.wake()
        if self._is_sent:
            self._finish()
        return False

    @property
    def _ends_well(self) -> bool:
        """True if our half ends with END_STREAM, and not with an error behind it."""
        return self._ends and not self._reset_code

    @property
    def _ends_with_data(self) -> bool:
        """True if END_STREAM stands on the last of the data, and not on trailers."""
        return self._ends_well and not self._trailers

    def _block(self) -> None:
        if self.blocked_at is None:
            self.blocked_at = self._owner.loop.time()

    def _take(self, size: int) -> bytes:
        """So many bytes from the front of the queue."""
        queue = self._queue
        if size == self._queued:
            data = queue[0] if len(queue) == 1 else b"".join(queue)
            queue.clear()
        else:
            pieces, left = [], size
            while left:
                piece = queue.popleft()
                if len(piece) > left:
                    queue.appendleft(piece[left:])
                    piece = piece[:left]
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
        self._queued -= size
        return data

    def _finish(self) -> None:
        """Our half has ended."""
        if not self.is_closing:
            return
        loop = self._owner.loop
        loop.call_soon(self._lose_session)
        code = self._reset_code
        if not self._input_ended and code is None:
            if self._linger is None:
                self._linger = loop.call_later(LINGER_SECONDS, self.abort, NO_ERROR)
            return
        if code is not None and (code or not self._input_ended):
            self._owner.machine.reset(self.stream_id, code)
        self._end()

    def _end(self) -> None:
        self._release()
        self._owner.ended(self)

    # Input.

    def _deliver(self) -> None:
        """Hand on what has come, while it is wanted."""
        unread = self._unread
        while self._reads and unread and self.session is not None and not self.is_closing:
            piece = self._next_piece()
            self._delivered += len(piece)
            self.session.data_received(piece)
            if self._reads:
                self._acknowledge()
        if self.session is None or self.is_closing:
            unread.clear()
            self._acknowledge()
        elif not unread and self._reads:
            # Padding, and frames of no octets.
            self._acknowledge()
        if not self._input_ended or unread:
            return
        if self._linger is not None:
            self._end()
        elif self._reads and self.session is not None and not self.is_closing:
            self.session.eof_received()

    def _next_piece(self) -> bytes:
        piece = bytes(self._unread[: self._owner.read_piece_bytes])
        del self._unread[: len(piece)]
        return piece

    def _acknowledge(self) -> None:
        """Let the client send as much again as has been used."""
        credit = self._delivered if self._unread else self._credit
        if credit:
            self._credit -= credit
            self._owner.machine.acknowledge(self.stream_id, credit)
            self._owner.write_soon()
        self._delivered = 0

    @property
    def has_all_input(self) -> bool:
        """True once the client has ended its half, and all of it was handed on."""
        return self._input_ended and not self._unread

    # What the session calls: the outlet.

    @property
    def is_full(self) -> bool:
        return self._queued >= self._owner.write_buffer_bytes

    @property
    def taken_bytes(self) -> int:
        return self._sent - min(self._sent, self._owner.outlet.unread_bytes)

    @property
    def unread_bytes(self) -> int:
        return self._queued + min(self._sent, self._owner.outlet.unread_bytes)

    def write_head(self, fields: Headers) -> None:
        """Queue a field section, before all data."""
        if not self.is_closing:
            self._fields = fields
            self._owner.is_due(self)

    def write(self, data: bytes) -> None:
        if self.is_closing or not data:
            return
        self._queue.append(data)
        self._queued += len(data)
        self._owner.is_due(self)

    def respond(self, response: StreamResponse, event: ResponseBody) -> None:
        """Write a piece of a response's body, and its head before the first."""
        fields, data = response.body(event)
        if fields is not None:
            self.write_head(fields)
        self.write(data)
        if response.is_complete:
            self._end_half()

    def end_with(self, trailers: Headers) -> None:
        """Send what is queued, then a last field section, which ends our half."""
        self._trailers = trailers
        self._end_half()

    def _end_half(self) -> None:
        if not self.is_closing:
            self._ends = True
            self._owner.is_due(self)

    def send_interim(self, status: bytes, fields: HeaderPairs = ()) -> None:
        """Send an interim response, before the final one."""
        if not self.is_closing:
            head = [(b":status", status), *fields]
            self._owner.machine.send_head(self.stream_id, head, has_ended=False)
            self._owner.write_soon()

    async def drain(self) -> None:
        while self.is_full and not self.is_closing:
            await self._waiters.wait()

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        if not self._reads:
            self._reads = True
            if self._delivered:
                self._acknowledge()
            self._deliver()

    def close(self) -> None:
        """Send what is queued, then end the stream."""
        if not self.is_closing:
            self.is_closing = self._ends = True
            self._waiters.wake()
            self._owner.is_due(self)

    def linger(self) -> None:
        """Close; a client that is still sending is told that it need not."""
        self.close_with(NO_ERROR)

    def close_with(self, code: int) -> None:
        """Close; a client that is still sending gets its stream reset with this code."""
        self._reset_code = code
        self.close()

    def abort(self, code: int = CANCEL) -> None:
        """Reset the stream; what is queued is lost."""
        if not self._is_lost:
            self._owner.machine.reset(self.stream_id, code)
            self._owner.write_soon()
            self._owner.loop.call_soon(self._lose_session)
            self._end()

    def switch(self, session: ProtocolSession, data: bytes) -> None:
        """Let a session speak here."""
        self.session = session
        if data:
            session.data_received(data)
