"""One HTTP request and its response, whichever version of HTTP carries them.

    http.request ...  http.disconnect          receive(), or the mailbox through the door
    http.response.start  http.response.body    send()

The extensions of ASGI for responses are those of EXTENSIONS: trailers for a client that has sent
TE: trailers, early hints over HTTP/2, and a file in place of a body.

`http.disconnect` comes exactly once into the mailbox, last: when the response is complete or the
client has gone.  `receive` repeats it to whoever asks again.  A `receive()` that waits while the
response is completed gets it when the application has returned, or LISTENER_SECONDS later: Django
waits there beside its view and cancels that task once the response is sent.  Woken first, the task
raises, and request and response stay in a reference cycle with the error's traceback.

An exchange ends in one of three ways, each recorded once: the response is complete; the client has
gone (`abandon`); the response cannot be completed, or is refused, and is cut (`cut`).
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any, Final, Protocol

from channels.exceptions import ClientDisconnected, LocalProtocolError, NoRouteFound
from channels.kit.doors import DOOR, Door
from channels.kit.mailbox import Mailbox
from channels.kit.types import Headers, Message
from channels.server.application import ApplicationCall, log_end, log_surplus
from channels.server.file_body import file_pieces
from channels.server.garbage import COUNTED_FROM_BYTES
from channels.server.request_ids import request_id_of
from channels.server.scope import client_of
from channels.server.service import HttpOutlet, Service
from channels.wire.fields import checked_fields
from channels.wire.handshake import REFUSAL_FIELDS
from channels.wire.request import Request
from channels.wire.response import Response, ResponseBody, ResponseStart, ResponseTrailers

DISCONNECT: Final = "http.disconnect"
#: What an application may send beside start and body: ASGI, "Extensions".
_TRAILERS: Final = "http.response.trailers"
_HINTS: Final = "http.response.early_hint"
_FILE: Final = "http.response.pathsend"
EXTENSIONS: Final = (_TRAILERS, _HINTS, _FILE)
#: How long a `receive()` goes on waiting after the whole response was sent.
LISTENER_SECONDS: Final = 0.05


class Carrier(Protocol):
    """What carries an exchange: a connection of HTTP/1.1, a stream of HTTP/2."""

    @property
    def outlet(self) -> HttpOutlet:
        """Where the response goes."""

    def starting(self) -> None:
        """The application has given status and fields; they may still be changed."""

    def send_body(self, event: ResponseBody) -> None:
        """Write a piece of the response's body, and its head before the first."""

    def send_trailers(self, event: ResponseTrailers) -> None:
        """Write trailers, once all are known."""

    def send_hints(self, links: Headers) -> None:
        """Tell the client early which resources the response will need, where it can take that."""

    def ask_for_body(self) -> None:
        """The application wants the body: a client that waits for that is told."""

    def completed(self) -> None:
        """The whole response has been written."""

    def cut(self) -> None:
        """End a response that cannot be completed, so that the client sees that it is not whole."""


def own_answer(response: Response, status: int, reason: str = "") -> ResponseBody:
    """Start a response of the server's own, in place of one that has not begun; its body."""
    response.forget()
    fields = [(b"content-type", b"text/plain; charset=utf-8"), *REFUSAL_FIELDS.get(status, ())]
    response.start(ResponseStart(status, fields))
    return ResponseBody((reason or HTTPStatus(status).phrase).encode())


class HttpExchange:
    """A request, its response, and the application's call."""

    def __init__(
        self, service: Service, carrier: Carrier, request: Request, response: Response
    ) -> None:
        self._service = service
        self._carrier = carrier
        self._outlet = outlet = carrier.outlet
        self.request = request
        self.response = response
        self.scope = scope = service.scopes.build("http", request, outlet.peer)
        scope["extensions"] = {name: {} for name in EXTENSIONS}
        self.client = client_of(scope)
        self.request_id = request_id_of(scope)
        #: When the head was complete, by the loop's clock.
        self.began = service.loop.time()
        #: Bytes of both bodies, of the response's those that were never sent included.
        self.octets = 0
        self.mailbox = Mailbox()
        #: True once nothing more is sent for it.
        self.is_over = False
        self._has_trailers = False
        self._call = ApplicationCall(scope, self._ended)
        self._listener_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call the application."""
        request, service = self.request, self._service
        if not request.has_body:
            self.put_body(b"", more=False)
        receive, send, context = self.receive, self.send, service.context_of(self.scope)
        if not request.expects_continue:
            # Through the door the body would be asked for without our knowing.
            self.scope["extensions"][DOOR] = Door(receive, send, self.mailbox, context=context)
        self._call.start(service.application, receive, send, service.tasks, context)

    # What the carrier calls.

    def put_body(self, data: bytes, *, more: bool) -> None:
        """Hand a piece of the request's body on."""
        event = {"type": "http.request", "body": data, "more_body": more}
        self.octets += len(data)
        self.mailbox.put_client(event, len(data))

    def refuse(self, status: int, reason: str) -> bool:
        """Answer a broken rule of the client's; False if the response had begun: it is cut."""
        if self.response.has_begun:
            self.cut()
            return False
        self._carrier.send_body(own_answer(self.response, status, reason))
        self.abandon()
        return True

    def cut(self) -> None:
        """End a response that cannot be completed."""
        self.abandon()
        self._carrier.cut()

    def abandon(self) -> None:
        """The client has gone, or was cut off: nothing more is sent."""
        if self.is_over:
            return
        self._record()
        self.octets += self.response.missing_size
        self.is_over = True
        self.hang_up()

    def hang_up(self) -> None:
        """Tell the application that its client has gone; it has `close_timeout` left."""
        self._put_disconnect()
        seconds = self._service.options.timeouts.close_timeout
        # Whoever sees to its own end needs the first span for that.
        self._call.cancel_in(seconds * 2 if self.mailbox.on_gone is not None else seconds)

    # The end.

    def _complete(self) -> None:
        """The whole response is written."""
        self._record()
        if surplus := self.response.surplus:
            log_surplus(self.scope, surplus)
        self.is_over = True
        if self.mailbox.is_awaited and self._call.is_running:
            loop = self._service.loop
            self._listener_timer = loop.call_later(LISTENER_SECONDS, self._put_disconnect)
        else:
            self._put_disconnect()
        self._carrier.completed()

    def _put_disconnect(self) -> None:
        self.mailbox.put_last({"type": DISCONNECT})

    def _record(self) -> None:
        response, service = self.response, self._service
        self.octets += response.size
        line, status, size = self.request.line, response.status or None, response.size
        seconds = service.loop.time() - self.began
        service.record("http", line, status, size, self.client, seconds, "", self.request_id)

    def _ended(self, error: BaseException | None) -> None:
        if self._listener_timer is not None:
            self._listener_timer.cancel()
            self._put_disconnect()
        log_end(self.scope, error, complete=self.is_over or self.mailbox.gone)
        if not self.is_over:
            self._answer_for_application(error)
        if self.octets >= COUNTED_FROM_BYTES:
            service = self._service
            service.garbage.add(self.octets, self.began, service.loop)

    def _answer_for_application(self, error: BaseException | None) -> None:
        """Answer for an application that ended without a whole response."""
        response = self.response
        if response.is_complete:
            self._complete()
        elif response.has_begun or self.mailbox.gone:
            self.cut()
        else:
            status = 404 if isinstance(error, NoRouteFound) else 500
            self._carrier.send_body(own_answer(response, status))
            self._complete()

    # What the application calls.

    async def receive(self) -> Message:
        """The next event of the client."""
        mailbox = self.mailbox
        if mailbox.client_size == 0:
            if self.is_over or mailbox.gone:
                return {"type": DISCONNECT}
            if self.request.expects_continue:
                self._carrier.ask_for_body()
        return await mailbox.get_client()

    async def send(self, message: Message) -> None:
        """Send a part of the response; waits while the client does not read.

        Raises:
            ClientDisconnected: If the client has gone.
            LocalProtocolError: If the message is not allowed here; nothing of it is sent.
        """
        kind = message.get("type")
        outlet = self._outlet
        if kind == "http.response.body":
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            if self.is_over or outlet.is_closing:
                self._check_open()
            self._carrier.send_body(ResponseBody(body, bool(message.get("more_body"))))
            if outlet.is_full:
                await outlet.drain()
                self._check_open()
            if self.response.is_complete:
                self._complete()
        elif kind == "http.response.start":
            if "status" not in message:
                raise LocalProtocolError("http.response.start needs a status.")
            if self.is_over or outlet.is_closing:
                self._check_open()
            self._carrier.starting()
            headers = message.get("headers", ())
            has_trailers = bool(message.get("trailers"))
            takes_them = has_trailers and self.request.takes_trailers
            self.response.start(ResponseStart(message["status"], headers, takes_them))
            self._has_trailers = has_trailers
        elif kind == _TRAILERS:
            self._send_trailers(message)
        elif kind == _HINTS:
            self._send_hints(message)
        elif kind == _FILE:
            await self._send_file(message)
        else:
            raise LocalProtocolError(
                f"Message type {kind!r}: expected http.response.start or http.response.body."
            )

    def _send_trailers(self, message: Message) -> None:
        if self._has_trailers and not self.request.takes_trailers:
            # The response was complete without them.
            return
        self._check_open()
        more = bool(message.get("more_trailers"))
        self._carrier.send_trailers(ResponseTrailers(message.get("headers", ()), more))
        if self.response.is_complete:
            self._complete()

    def _send_hints(self, message: Message) -> None:
        self._check_open()
        links = checked_fields((b"link", value) for value in message.get("links", ()))
        # Behind the head there is no place for an interim response.
        if links and not self.response.has_begun:
            self._carrier.send_hints(links)

    async def _send_file(self, message: Message) -> None:
        """Send a file as the whole body."""
        self._check_open()
        if self.response.has_begun:
            raise LocalProtocolError(f"{_FILE} sends a whole body: a part of one has been sent.")
        if self.response.without_body:
            await self.send({"type": "http.response.body"})
            return
        async with contextlib.aclosing(file_pieces(message.get("path"))) as pieces:
            async for piece, more in pieces:
                await self.send({"type": "http.response.body", "body": piece, "more_body": more})

    def _check_open(self) -> None:
        if self._outlet.is_closing:
            # The loop may not have told us yet, and cannot while the application goes on sending.
            self.abandon()
        if self.is_over:
            raise ClientDisconnected(
                self._outlet.cut_reason or "The response is over, or its client has gone."
            )


def _as_bytes(body: Any) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise LocalProtocolError(f"A body of {type(body).__name__}: expected bytes.")
