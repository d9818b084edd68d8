"""One HTTP request on a stream of HTTP/2: it carries an exchange as a connection of HTTP/1.1 does.

One piece of the body at a time is in the application's mailbox; the rest waits unacknowledged in
the stream, so that all streams together hold no more than the connection's window.
"""

from __future__ import annotations

from channels.exceptions import RemoteProtocolError
from channels.kit.types import Headers
from channels.server.access import Kind
from channels.server.deadlines import Deadlines
from channels.server.http2_stream import INTERNAL_ERROR, NO_ERROR, StreamOutlet
from channels.server.http_exchange import HttpExchange, own_answer
from channels.server.request_deadlines import RequestDeadlines
from channels.server.service import Service
from channels.wire.http2.response import StreamResponse
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseTrailers


class StreamRequest:
    """A request, from its head to the end of its stream; the session of that stream."""

    __slots__ = (
        "_asked_for_body",
        "_body_bytes",
        "_body_is_whole",
        "_deadlines",
        "_exchange",
        "_limits",
        "_times",
        "outlet",
        "response",
    )

    def __init__(self, service: Service, outlet: StreamOutlet, request: Request) -> None:
        self.outlet = outlet
        self.response = StreamResponse(request.method, service.stamp)
        self._limits = service.options.limits
        self._deadlines = Deadlines(service.loop, self._due)
        self._times = times = RequestDeadlines(service.options, self._deadlines)
        self._body_bytes = 0
        self._body_is_whole = not request.has_body
        self._asked_for_body = not request.expects_continue
        self._exchange: HttpExchange | None = None
        self._exchange = exchange = HttpExchange(service, self, request, self.response)
        times.begin()
        if request.has_body:
            exchange.mailbox.on_room = self._read_on
            if self._asked_for_body:
                times.await_body()
        exchange.start()

    # What the stream calls.

    def data_received(self, data: bytes) -> None:
        """A piece of the body came in."""
        exchange = self._exchange
        if exchange is None or self._body_is_whole:
            return
        self._body_bytes += len(data)
        self._times.received += len(data)
        most = self._limits.max_body_bytes
        if most is not None and self._body_bytes > most:
            self._refuse(RemoteProtocolError(f"The body is over {most} bytes.", status=413))
            return
        if self.outlet.has_all_input:
            self._end_body(data)
            return
        exchange.put_body(data, more=True)
        exchange.mailbox.hold_client()
        if exchange.mailbox.client_is_full:
            # From here on the application is awaited, not the client.
            self._times.end_body()
            self.outlet.pause_reading()
        else:
            self._times.await_body()

    def eof_received(self) -> bool:
        """The body is whole."""
        if not self._body_is_whole:
            self._end_body(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the seam's shape
        """The stream is gone."""
        exchange = self._release()
        if exchange is not None:
            exchange.abandon()

    async def shutdown(self, code: int, idle_seconds: float = 0.0) -> None:
        """A request is finished as it is; its connection waits for that."""

    def _end_body(self, data: bytes) -> None:
        self._body_is_whole = True
        self._times.end_body()
        if self._exchange is not None:
            self._exchange.put_body(data, more=False)

    def _read_on(self) -> None:
        """The application has taken a piece of the body."""
        if not self._body_is_whole:
            self._times.await_body()
            self.outlet.resume_reading()

    def _due(self, name: str) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        scope = exchange.scope
        if self._times.is_late(name, scope, has_answer=self.response.has_begun):
            self._refuse(self._times.error(name, scope, exchange.client))

    def _refuse(self, error: RemoteProtocolError) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.refuse(error.status, error.reason):
            self._release()
            self.outlet.close_with(NO_ERROR)

    def _release(self) -> HttpExchange | None:
        """Let go of the exchange: it and this hold each other."""
        exchange, self._exchange = self._exchange, None
        self._deadlines.close()
        if exchange is not None:
            exchange.mailbox.on_room = None
        return exchange

    # The carrier of an exchange.

    def starting(self) -> None:
        """The application has given status and fields; nothing depends on that here."""

    def send_body(self, event: ResponseBody) -> None:
        """Write a piece of the response's body, and its head before the first."""
        self.outlet.respond(self.response, event)

    def send_trailers(self, event: ResponseTrailers) -> None:
        """Write trailers, once all are known."""
        fields = self.response.trailers(event)
        if fields is not None:
            self.outlet.end_with(fields)

    def send_hints(self, links: Headers) -> None:
        """Tell the client early which resources the response will need."""
        self.outlet.send_interim(b"103", links)

    def ask_for_body(self) -> None:
        """Tell a client that waits for it to send the body."""
        if not self._asked_for_body and not self.response.has_begun:
            self._asked_for_body = True
            self.outlet.send_interim(b"100")
            self._times.await_body()

    def completed(self) -> None:
        """The response is written: the stream ends with it."""
        self._release()
        self.outlet.close_with(NO_ERROR)

    def cut(self) -> None:
        """End a response that cannot be completed, so that the client sees that it is not whole."""
        self._release()
        self.outlet.abort(INTERNAL_ERROR)


def refuse_request(
    service: Service,
    outlet: StreamOutlet,
    error: RemoteProtocolError,
    handshake: Request | None = None,
) -> None:
    """Answer a request that no application is asked about."""
    response = StreamResponse("GET", service.stamp)
    outlet.respond(response, own_answer(response, error.status, error.reason))
    kind: Kind = "http" if handshake is None else "websocket.rejected"
    line = None if handshake is None else handshake.line
    client = outlet.peer.client
    service.record(kind, line, response.status, response.size, client, 0.0, error.reason)
