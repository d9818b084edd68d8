"""The opening of a WebSocket: the request judged, and every answer that it can get, written.

One class for each way in which a WebSocket begins: the upgrade of a connection of HTTP/1.1
(RFC 6455 section 4), and a stream of HTTP/2 (RFC 8441).
"""

from __future__ import annotations

from channels.exceptions import LocalProtocolError
from channels.kit.types import Headers, Message
from channels.server.http2_stream import StreamOutlet
from channels.server.http_exchange import own_answer
from channels.server.service import HttpOutlet
from channels.wire.deflate import negotiate
from channels.wire.handshake import accepted_fields, read_handshake, switching_protocols
from channels.wire.http1_response import ResponseWriter
from channels.wire.http2.response import StreamResponse
from channels.wire.request import Request
from channels.wire.response import Response, ResponseBody, ResponseStart, Stamp


class Opening:
    """A handshake that an application may accept, refuse, or refuse in its own words.

    Raises:
        RemoteProtocolError: If the request must be refused without asking the application.
    """

    def __init__(self, request: Request, denial: Response, *, compress: bool) -> None:
        self._handshake = read_handshake(
            method=request.method,
            http_version=request.http_version,
            headers=request.headers,
            has_body=request.has_body,
        )
        #: What permessage-deflate would be, once accepted.
        self.compression = negotiate(self._handshake.extensions) if compress else None
        #: True once the application has accepted.
        self.is_accepted = False
        self._denial = denial

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers, in its order of preference."""
        return list(self._handshake.subprotocols)

    @property
    def status(self) -> int:
        """The status of the refusal, or 0."""
        return self._denial.status

    @property
    def size(self) -> int:
        """Bytes of the refusal's body so far."""
        return self._denial.size

    @property
    def can_be_refused(self) -> bool:
        """True while no byte of an answer was written."""
        return not self._denial.has_begun

    @property
    def is_denied(self) -> bool:
        """True once a refusal is complete."""
        return self._denial.is_complete

    def accept(self, message: Message) -> None:
        """Write the answer to `websocket.accept`.

        Raises:
            LocalProtocolError: If it names a subprotocol that was not offered, or unfit headers.
        """
        agreed = self.compression
        fields = accepted_fields(
            self._handshake,
            subprotocol=message.get("subprotocol") or None,
            extensions=agreed.header if agreed is not None else None,
            headers=message.get("headers") or (),
        )
        self._write_accept(fields)
        self.is_accepted = True

    def start_denial(self, message: Message) -> None:
        """Take a `websocket.http.response.start`; nothing is written before its body."""
        if "status" not in message:
            raise LocalProtocolError(f"{message['type']!r} needs a 'status'.")
        self._denial.start(ResponseStart(message["status"], message.get("headers") or ()))

    def deny(self, message: Message) -> None:
        """Write a `websocket.http.response.body`."""
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            raise LocalProtocolError(f"'body' is a bytes: found {type(body).__name__}.")
        self._write_denial(ResponseBody(body, bool(message.get("more_body"))))

    def refuse(self, status: int) -> None:
        """Write a whole refusal, in place of one that was started and not written."""
        self._write_denial(own_answer(self._denial, status))

    def _write_accept(self, fields: Headers) -> None:
        raise NotImplementedError

    def _write_denial(self, event: ResponseBody) -> None:
        raise NotImplementedError


class UpgradeOpening(Opening):
    """The upgrade of a connection."""

    def __init__(
        self, outlet: HttpOutlet, request: Request, stamp: Stamp, *, compress: bool
    ) -> None:
        self._outlet = outlet
        self._writer = ResponseWriter(request.method, request.http_version, False, stamp)
        super().__init__(request, self._writer, compress=compress)

    def _write_accept(self, fields: Headers) -> None:
        self._outlet.write(switching_protocols(self._handshake, fields))

    def _write_denial(self, event: ResponseBody) -> None:
        self._outlet.write(self._writer.body(event))


class StreamOpening(Opening):
    """A stream that becomes a WebSocket."""

    def __init__(
        self, outlet: StreamOutlet, request: Request, stamp: Stamp, *, compress: bool
    ) -> None:
        self._outlet = outlet
        self._response = StreamResponse("GET", stamp)
        super().__init__(request, self._response, compress=compress)

    def _write_accept(self, fields: Headers) -> None:
        self._outlet.write_head([(b":status", b"200"), *fields])

    def _write_denial(self, event: ResponseBody) -> None:
        self._outlet.respond(self._response, event)
        if self._response.is_complete:
            # The client need not send what it would have sent to a WebSocket.
            self._outlet.linger()


def opening_of(outlet: HttpOutlet, request: Request, stamp: Stamp, *, compress: bool) -> Opening:
    """The opening of a request that asks for a WebSocket.

    Raises:
        RemoteProtocolError: If it must be refused without asking the application.
    """
    if isinstance(outlet, StreamOutlet):
        return StreamOpening(outlet, request, stamp, compress=compress)
    return UpgradeOpening(outlet, request, stamp, compress=compress)
