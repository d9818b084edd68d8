"""HTTP/2 on a connection: many streams, each with an exchange or a WebSocket of its own.

    bytes -> wire.http2 -> stream -> its session: an exchange, or a WebSocket
    session -> stream, which waits for the client's windows -> wire.http2 -> outlet

What streams have to send leaves at the end of the loop's turn, in turns of TURN_BYTES, and only
while the outlet has room: a client that does not read holds its streams, and so can open no others.

    deadline   set while                                  when due
    idle       no stream is open                          GOAWAY, close
    header     the preface or a header block has begun    GOAWAY, close
    stalled    a stream waits for the client's windows    cut it, if that was for `write_timeout`
    drain      the first GOAWAY is not acknowledged       the second one

Close order: every stream's session hears `connection_lost`, the deadlines are released, the outlet
closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Protocol

from channels.exceptions import RemoteProtocolError
from channels.server.cuts import cut_off
from channels.server.deadlines import Deadlines
from channels.server.http2_request import StreamRequest, refuse_request
from channels.server.http2_stream import NO_ERROR, PROTOCOL_ERROR, StreamOutlet
from channels.server.seam import ProtocolSession
from channels.server.service import HttpOutlet, Service
from channels.wire.http2.connection import Http2Connection
from channels.wire.http2.events import (
    ConnectionFailed,
    Drained,
    Event,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamRefused,
    StreamReset,
)
from channels.wire.http2.own_frames import refusal

#: How long a client has to answer the first GOAWAY, in which it may open its last streams.
DRAIN_SECONDS: Final = 1.0
#: How many times a stalled stream is looked at within the time that it has.
_LOOKS: Final = 4


class SharedOutlet(HttpOutlet, Protocol):
    """An outlet that tells when it can take more: many wait for that."""

    #: Called when it has room again after it was full.
    on_room: Callable[[], None] | None


class Http2Session:
    """HTTP/2 spoken with one client."""

    #: What a client gets that may not have a session.
    refusal: Final = refusal("Too many connections.")

    def __init__(self, service: Service, outlet: SharedOutlet) -> None:
        limits = service.options.limits
        if service.scopes.trusts(outlet.peer):
            # Its connection carries many clients: it sees to what each may do.
            limits = replace(limits, http2_max_reset_rate=None, http2_max_control_rate=None)
        self._service = service
        self.outlet = outlet
        self.loop = loop = service.loop
        self._timeouts = service.options.timeouts
        self.machine = Http2Connection(limits)
        self.write_buffer_bytes = limits.write_buffer_bytes
        self.read_piece_bytes = limits.request_buffer_bytes
        self._stretch_seconds = limits.stretch_ms / 1000
        self._deadlines = Deadlines(loop, self._on_due)
        self._streams: dict[int, StreamOutlet] = {}
        #: Streams that have something to send, in the order of their turns.
        self._due: deque[StreamOutlet] = deque()
        #: Streams that wait for the client's windows.
        self._blocked: dict[StreamOutlet, None] = {}
        self._flush_is_due = False
        #: True while the socket is left unread because others are served.
        self._rests = False
        self._is_over = False
        self._is_draining = False
        #: True if streams are accepted for a while after the client was asked to open no more.
        self._keeps_on = False
        self._stopped: asyncio.Future[None] | None = None
        outlet.on_room = self._flush_soon
        self._deadlines.set("header", self._timeouts.header_timeout)
        self.write_soon()

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        self.machine.receive_data(data, self.loop.time())
        if not self._rests:
            self._advance()

    def eof_received(self) -> bool:
        """The client will send no more, on any stream: nobody is there to read."""
        self._close()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        self._deadlines.close()
        self.outlet.on_room = None
        self._due.clear()
        self._blocked.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.connection_lost(error)
            self._service.host.released(stream)
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    @property
    def websockets(self) -> Iterator[ProtocolSession]:
        """The sessions of the streams that are WebSockets."""
        for stream in self._streams.values():
            if stream.session is not None and not isinstance(stream.session, StreamRequest):
                yield stream.session

    async def shutdown(self, code: int, idle_seconds: float = 0.0) -> None:  # noqa: ARG002
        """Answer what is in hand and what is under way, then close.

        The client is told to open no more streams; once it has seen that, or `idle_seconds` later
        where another process takes over, it is told which is the last.  WebSockets are closed by
        whoever stops the server.
        """
        if self._is_over:
            return
        if self._stopped is None:
            self._stopped = self.loop.create_future()
            self._is_draining, self._keeps_on = True, bool(idle_seconds)
            self.machine.drain()
            self._deadlines.set("drain", max(DRAIN_SECONDS, idle_seconds))
            self.write_soon()
        await asyncio.shield(self._stopped)

    # From the client.

    def _advance(self) -> None:
        """Take what the machine has to say, and let others have their turn in between."""
        until = 0.0
        while not self._is_over:
            event = self.machine.next_event()
            if event is None:
                break
            self._take(event)
            now = time.monotonic()
            until = until or now + self._stretch_seconds
            if now >= until and self.machine.is_ready_to_feed:
                self._rests = True
                self.outlet.pause_reading()
                self.loop.call_soon(self._go_on)
                break
        self._watch_head()
        self.write_soon()

    def _go_on(self) -> None:
        self._rests = False
        if not self._is_over:
            self._advance()
            if not self._rests:
                self.outlet.resume_reading()

    def _watch_head(self) -> None:
        if self.machine.awaits_preface or self.machine.is_inside_head:
            # Once for a whole block: frames that drip in do not move it.
            if "header" not in self._deadlines:
                self._deadlines.set("header", self._timeouts.header_timeout)
            return
        self._deadlines.clear("header")
        if not self._streams and "idle" not in self._deadlines:
            self._deadlines.set("idle", self._timeouts.keep_alive)

    def _take(self, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self._open(event)
        elif isinstance(event, StreamData):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.data_received(event.data, event.credit)
            else:
                self.machine.acknowledge(event.stream_id, event.credit)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.eof_received()
        elif isinstance(event, StreamReset):
            self._lose(event.stream_id)
        elif isinstance(event, StreamRefused):
            self._refuse(event.stream_id, event.error)
        elif isinstance(event, ConnectionFailed):
            self._fail(event)
        elif isinstance(event, Drained):
            if self._is_draining and not self._keeps_on:
                self._end_drain()
        else:
            self._unblock()

    def _new_stream(self, stream_id: int) -> StreamOutlet:
        stream = self._streams[stream_id] = StreamOutlet(self, stream_id, self.outlet.peer)
        self._deadlines.clear("idle")
        return stream

    def _open(self, event: StreamOpened) -> None:
        service, request = self._service, event.request
        stream = self._new_stream(event.stream_id)
        if not request.upgrade:
            stream.session = StreamRequest(service, stream, request)
            return
        scope = service.scopes.build("websocket", request, stream.peer)
        try:
            stream.session = service.host.open_websocket(service, stream, request, scope)
        except RemoteProtocolError as error:
            refuse_request(service, stream, error, request)
            stream.close_with(NO_ERROR)

    def _refuse(self, stream_id: int, error: RemoteProtocolError) -> None:
        """Answer a request that broke a rule; the stream is reset behind the answer."""
        stream = self._new_stream(stream_id)
        refuse_request(self._service, stream, error)
        stream.close_with(PROTOCOL_ERROR if error.status == 400 else NO_ERROR)

    def _lose(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.connection_lost(None)
            self._forget(stream)

    def _fail(self, event: ConnectionFailed) -> None:
        if event.flood:
            cut_off(event.flood, self.outlet.peer.client, event.why)
        self._close()

    def _on_due(self, name: str) -> None:
        if name == "drain":
            self._end_drain()
        elif name == "stalled":
            self._look_at_stalled()
        else:
            if name == "header":
                seconds = self._timeouts.header_timeout
                why = f"a header block took too long: {seconds:g} s"
                cut_off("slow_header", self.outlet.peer.client, why)
            self.machine.go_away()
            self._close()

    # The end.

    def _end_drain(self) -> None:
        self._deadlines.clear("drain")
        self.machine.go_away()
        self.write_soon()
        self._is_draining = False
        if not self._streams:
            self._close()

    def _close(self) -> None:
        """Send what the machine has to say, and close."""
        self._write()
        self._is_over = True
        self.outlet.linger()

    # What streams call.

    def ended(self, stream: StreamOutlet) -> None:
        """Nothing more is sent on the stream, and nothing that comes is used."""
        if self._streams.pop(stream.stream_id, None) is None:
            return
        self.machine.close(stream.stream_id)
        self._forget(stream)

    def _forget(self, stream: StreamOutlet) -> None:
        self._blocked.pop(stream, None)
        self._service.host.released(stream)
        if self._streams or self._is_over:
            return
        if self._stopped is not None and not self._is_draining:
            self._close()
        else:
            self._deadlines.set("idle", self._timeouts.keep_alive)

    def is_due(self, stream: StreamOutlet) -> None:
        """Something is to be sent: call `stream.send_some` at the end of this turn."""
        if not stream.is_queued:
            stream.is_queued = True
            self._due.append(stream)
            self.write_soon()

    def write_soon(self) -> None:
        """The machine has something to send."""
        if not self._flush_is_due:
            self._flush_is_due = True
            self.loop.call_soon(self._flush)

    def _flush_soon(self) -> None:
        if self._due:
            self.write_soon()

    def _flush(self) -> None:
        """Let the streams that are due send, in turns, while the outlet has room."""
        self._flush_is_due = False
        if self._is_over:
            return
        due, outlet = self._due, self.outlet
        while due and not outlet.is_full:
            stream = due.popleft()
            stream.is_queued = False
            if stream.send_some():
                stream.is_queued = True
                due.append(stream)
                self._write()
            elif stream.blocked_at is not None:
                self._blocked[stream] = None
                if "stalled" not in self._deadlines:
                    self._watch_stalled()
        self._write()

    def _write(self) -> None:
        if data := self.machine.data_to_send():
            self.outlet.write(data)

    # A client that does not read one of its streams.

    def _unblock(self) -> None:
        for stream in self._blocked:
            self.is_due(stream)
        self._blocked.clear()

    def _watch_stalled(self) -> None:
        if (seconds := self._timeouts.write_timeout) is not None:
            self._deadlines.set("stalled", seconds / _LOOKS)

    def _look_at_stalled(self) -> None:
        now, seconds = self.loop.time(), self._timeouts.write_timeout or 0.0
        for stream in [*self._blocked]:
            since = now - (stream.blocked_at or now)
            # As on a connection of HTTP/1.1: what fits into the buffer may wait.
            if since >= seconds and (stream.is_full or stream.is_closing):
                stream.cut_reason = (
                    f"The client read too slowly: {stream.unread_bytes} bytes of a stream waited "
                    f"for {since:.3g} s."
                )
                cut_off("not_reading", stream.peer.client, stream.cut_reason)
                stream.abort()
        if self._blocked:
            self._watch_stalled()
