"""HTTP/1.1 on a connection: requests in order, one exchange at a time.

    bytes -> wire.http1 -> exchange's mailbox -> receive()
    send() -> wire.http1 -> outlet

What follows a request stays unread in the machine until that request is answered, up to
`read_ahead_bytes` and what one more read brings; then the socket is left unread.  So is it while
the application does not take the body.  It is read again when the machine has nothing more to say,
or less than that bound waits behind the request that is being answered.

    deadline   set while                                        when due
    idle       nothing of a request has come                    close
    header     a head has begun                                 408, close
    gone       the client ended its half, no response yet       tell the application
    (others)   a request is being read and answered             request_deadlines.py

Close order: the exchange is abandoned (its application hears `http.disconnect`), the deadlines are
released, the outlet closes.
"""

from __future__ import annotations

import asyncio
from typing import Final

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import KIB
from channels.kit.types import Headers
from channels.server.access import Kind
from channels.server.deadlines import Deadlines
from channels.server.http_exchange import HttpExchange, own_answer
from channels.server.request_deadlines import RequestDeadlines
from channels.server.seam import ProtocolSession
from channels.server.service import HttpOutlet, Service
from channels.wire.http1 import (
    BodyChunk,
    Continue,
    EndOfInput,
    Failure,
    Http1Connection,
    Http2Preface,
    HttpPhase,
)
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseTrailers

#: A body that nobody wanted is read on for so many bytes, to keep the connection; then it closes.
DISCARD_BYTES: Final = 64 * KIB
#: A client that has ended its half may still read; but most have gone.
HALF_CLOSE_SECONDS: Final = 1.0

#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_HEAD: Final = HttpPhase.HEAD
_BODY: Final = HttpPhase.BODY
_DONE: Final = HttpPhase.DONE


class HttpSession:
    """HTTP/1.1 spoken with one client."""

    def __init__(
        self, service: Service, outlet: HttpOutlet, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._service = service
        self._outlet = outlet
        self._loop = loop
        self._timeouts = service.options.timeouts
        self._read_ahead = service.options.limits.read_ahead_bytes
        self._machine = Http1Connection(
            service.options.limits,
            service.stamp,
            takes_preface=bool(service.options.http2) and not outlet.peer.is_secure,
        )
        self._deadlines = Deadlines(loop, self._due)
        #: Those of the present request.
        self._request = RequestDeadlines(service.options, self._deadlines)
        #: The exchange that is being answered.
        self._exchange: HttpExchange | None = None
        self._asked_for_body = False
        self._discarded = 0
        #: True while the socket is left unread.
        self._is_paused = False
        self._got_eof = False
        self._is_over = False
        self._stopped: asyncio.Future[None] | None = None
        self._deadlines.set("idle", self._timeouts.keep_alive)

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        machine = self._machine
        self._request.received += len(data)
        machine.receive_data(data)
        if machine.phase is not _DONE:
            self._advance()
        if machine.phase is _DONE and machine.buffered_bytes >= self._read_ahead:
            self._pause_reading()

    def eof_received(self) -> bool:
        self._got_eof = True
        self._machine.receive_eof()
        if self._exchange is None or self._machine.phase is not _DONE:
            self._advance()
        elif self._machine.response.has_begun:
            self._exchange.hang_up()
        else:
            self._deadlines.set("gone", HALF_CLOSE_SECONDS)
        return True

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the seam's shape
        self._is_over = True
        self._deadlines.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    async def shutdown(self, code: int, idle_seconds: float = 0.0) -> None:  # noqa: ARG002
        """Finish the response in hand, then close; without one, close after `idle_seconds`."""
        if self._is_over:
            return
        self._stopped = self._loop.create_future()
        self._machine.response.close_after()
        if self._exchange is None and idle_seconds:
            await asyncio.wait({self._stopped}, timeout=idle_seconds)
        if self._exchange is None and not self._is_over:
            self._outlet.close()
        await self._stopped

    # From the client.

    def _advance(self) -> None:
        """Take what the machine has to say, until it has nothing more or must wait."""
        while not self._is_over:
            event = self._machine.next_event()
            if event is None:
                if self._is_paused:
                    self._read_on()
                self._watch_input()
                return
            if isinstance(event, Request):
                self._begin(event)
                if not event.has_body:
                    # The next request waits for this one's answer.
                    if self._is_paused:
                        self._read_on()
                    return
            elif isinstance(event, BodyChunk):
                if not self._take_body(event):
                    return
            elif isinstance(event, Failure):
                self._refuse(event.error)
                return
            elif isinstance(event, Http2Preface):
                self._switch(self._service.host.open_http2(self._service, self._outlet))
                return
            elif isinstance(event, EndOfInput):
                self._outlet.close()
                return

    def _read_on(self) -> None:
        """Read the socket, unless enough waits behind the request that is being answered."""
        machine = self._machine
        if machine.phase is not _DONE or machine.buffered_bytes < self._read_ahead:
            self._is_paused = False
            self._outlet.resume_reading()

    def _pause_reading(self) -> None:
        self._is_paused = True
        self._outlet.pause_reading()

    def _watch_input(self) -> None:
        """Set the deadline for what is awaited from the client."""
        machine = self._machine
        if machine.phase is _BODY:
            if not self._client_waits:
                self._request.await_body()
        elif machine.phase is _HEAD and not machine.is_idle and "header" not in self._deadlines:
            # Once for a whole head: bytes that drip in do not move it.
            self._deadlines.clear("idle")
            self._deadlines.set("header", self._timeouts.header_timeout)

    @property
    def _client_waits(self) -> bool:
        """True if the client will not send the body before it is asked for it."""
        exchange = self._exchange
        return (
            exchange is not None and exchange.request.expects_continue and not self._asked_for_body
        )

    def _begin(self, request: Request) -> None:
        if request.upgrade and request.wants_websocket:
            self._hand_over(request)
            return
        if self._stopped is not None:
            self._machine.response.close_after()
        exchange = HttpExchange(self._service, self, request, self._machine.response)
        self._exchange = exchange
        self._request.begin()
        if request.has_body:
            exchange.mailbox.on_room = self._advance
            self._asked_for_body = False
            self._discarded = 0
        elif self._got_eof:
            self._deadlines.set("gone", HALF_CLOSE_SECONDS)
        exchange.start()

    def _hand_over(self, request: Request) -> None:
        """Let a WebSocket session have the connection, or refuse a handshake that is not right."""
        scope = self._service.scopes.build("websocket", request, self._outlet.peer)
        try:
            session = self._service.host.open_websocket(self._service, self._outlet, request, scope)
        except RemoteProtocolError as error:
            self._machine.fail()
            self._refuse(error, request)
            return
        self._switch(session)

    def _switch(self, session: ProtocolSession) -> None:
        """Leave the connection to another protocol."""
        self._is_over = True
        self._deadlines.close()
        self._outlet.resume_reading()
        self._outlet.switch(session, self._machine.take_buffer())
        if self._got_eof:
            session.eof_received()

    def _take_body(self, chunk: BodyChunk) -> bool:
        """Hand a piece of the body on; False if the rest must wait."""
        if not chunk.more:
            self._request.end_body()
        exchange = self._exchange
        if exchange is None:
            return self._discard(chunk)
        exchange.put_body(chunk.data, more=chunk.more)
        if exchange.mailbox.client_is_full:
            # From here on the application is awaited, not the client.
            self._request.end_body()
            self._pause_reading()
            return False
        return True

    def _discard(self, chunk: BodyChunk) -> bool:
        self._discarded += len(chunk.data)
        if self._discarded > DISCARD_BYTES:
            self._outlet.linger()
            return False
        if not chunk.more:
            self._next_cycle()
        return True

    def _refuse(self, error: RemoteProtocolError, handshake: Request | None = None) -> None:
        """Answer a broken rule, if an answer is still possible, and close."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exchange.refuse(error.status, error.reason):
                self._outlet.linger()
            return
        response = self._machine.response
        if response.has_begun:
            self.cut()
            return
        self.send_body(own_answer(response, error.status, error.reason))
        kind: Kind = "http" if handshake is None else "websocket.rejected"
        line = self._machine.head_begun if handshake is None else handshake.line
        client = self._outlet.peer.client
        self._service.record(kind, line, response.status, response.size, client, 0.0, error.reason)
        self._outlet.linger()

    def _due(self, name: str) -> None:
        exchange = self._exchange
        if name == "idle":
            self._outlet.close()
        elif name == "gone":
            if exchange is not None:
                exchange.hang_up()
        else:
            scope = None if exchange is None else exchange.scope
            has_answer = self._machine.response.has_begun
            if self._request.is_late(name, scope, has_answer=has_answer):
                client = self._outlet.peer.client if exchange is None else exchange.client
                error = self._request.error(name, scope, client)
                self._machine.fail()
                self._refuse(error)

    # The carrier of an exchange.

    @property
    def outlet(self) -> HttpOutlet:
        """Where responses go."""
        return self._outlet

    def starting(self) -> None:
        """The application has given status and fields; they may still be changed."""
        if self._machine.phase is _BODY and self._client_waits:
            # Its body may come or not: the next request could not be told from it.
            self._machine.response.close_after()

    def send_body(self, event: ResponseBody) -> None:
        """Write a piece of the response's body, and its head before the first."""
        self._outlet.write(self._machine.response.body(event))

    def send_trailers(self, event: ResponseTrailers) -> None:
        """Write trailers, once all are known."""
        self._outlet.write(self._machine.response.trailers(event))

    def send_hints(self, links: Headers) -> None:
        """Do nothing.

        RFC 8297 section 3: clients and proxies of HTTP/1.1 take an interim response that they do
        not expect for the final one, and the final one for the next request's.
        """

    def ask_for_body(self) -> None:
        """Tell a client that waits for it to send the body."""
        if self._client_waits and self._machine.phase is _BODY:
            self._asked_for_body = True
            self._machine.send(Continue())
            self._outlet.write(self._machine.data_to_send())
            self._watch_input()

    def completed(self) -> None:
        """The response is written: go on to the next request, or close."""
        machine = self._machine
        self._exchange = None
        keep_alive = machine.response.keep_alive and self._stopped is None
        if keep_alive and machine.phase is _DONE:
            self._next_cycle()
            if not machine.is_idle or self._got_eof or self._is_paused:
                self._advance()
            return
        self._request.end()
        self._deadlines.clear("gone")
        if keep_alive:
            self._advance()
        elif machine.phase is _BODY:
            self._outlet.linger()
        else:
            self._outlet.close()

    def _next_cycle(self) -> None:
        self._machine.start_next_cycle()
        self._deadlines.only("idle", self._timeouts.keep_alive)

    def cut(self) -> None:
        """End a response that cannot be completed, so that the client sees that it is not whole."""
        self._exchange = None
        if self._machine.response.ends_with_connection:
            self._outlet.abort()
        else:
            self._outlet.close()
