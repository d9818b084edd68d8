"""The opening of a WebSocket: the request judged, and every answer that it can get, as bytes."""

from __future__ import annotations

from http import HTTPStatus

from channels.exceptions import LocalProtocolError
from channels.kit.types import Message
from channels.wire.deflate import negotiate
from channels.wire.handshake import accept_response, read_handshake
from channels.wire.http1_response import ResponseWriter
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseStart, Stamp


class Opening:
    """A handshake that an application may accept, refuse, or refuse in its own words.

    Raises:
        RemoteProtocolError: If the request must be refused without asking the application.
    """

    def __init__(self, request: Request, stamp: Stamp, *, compress: bool) -> None:
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
        self._denial = ResponseWriter(request.method, request.http_version, False, stamp)

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

    def accept(self, message: Message) -> bytes:
        """The answer to `websocket.accept`.

        Raises:
            LocalProtocolError: If it names a subprotocol that was not offered, or unfit headers.
        """
        agreed = self.compression
        answer = accept_response(
            self._handshake,
            subprotocol=message.get("subprotocol") or None,
            extensions=agreed.header if agreed is not None else None,
            headers=message.get("headers") or (),
        )
        self.is_accepted = True
        return answer

    def start_denial(self, message: Message) -> None:
        """Take a `websocket.http.response.start`; nothing is written before its body."""
        if "status" not in message:
            raise LocalProtocolError(f"{message['type']!r} needs a 'status'.")
        self._denial.start(ResponseStart(message["status"], message.get("headers") or ()))

    def deny(self, message: Message) -> bytes:
        """The bytes for a `websocket.http.response.body`."""
        body = message.get("body", b"")
        if not isinstance(body, bytes):
            raise LocalProtocolError(f"'body' is a bytes: found {type(body).__name__}.")
        return self._denial.body(ResponseBody(body, bool(message.get("more_body"))))

    def refuse(self, status: int) -> bytes:
        """A whole refusal, in place of one that was started and not written."""
        self._denial.forget()
        self._denial.start(ResponseStart(status, [(b"content-type", b"text/plain; charset=utf-8")]))
        return self._denial.body(ResponseBody(HTTPStatus(status).phrase.encode()))
