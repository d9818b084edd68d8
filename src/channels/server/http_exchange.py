"""One HTTP request and its response, as its application sees them.

    http.request ...  http.disconnect          receive(), or the mailbox through the door
    http.response.start  http.response.body    send()

`http.disconnect` comes exactly once into the mailbox, last: when the response is complete or the
client has gone.  `receive` repeats it to whoever asks again.  A `receive()` that waits while the
response is completed gets it when the application has returned, or LISTENER_SECONDS later: Django
waits there beside its view and cancels that task once the response is sent.  Woken first, the task
raises, and request and response stay in a reference cycle with the error's traceback.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.kit.doors import DOOR, Door
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Scope
from channels.server.application import ApplicationCall, log_end
from channels.server.garbage import COUNTED_FROM_BYTES
from channels.server.scope import client_of
from channels.server.service import Service
from channels.wire.http1_request import Request
from channels.wire.http1_response import ResponseBody, ResponseStart

DISCONNECT: Final = "http.disconnect"
#: How long a `receive()` goes on waiting after the whole response was sent.
LISTENER_SECONDS: Final = 0.05


class Answers(Protocol):
    """The session, as its present exchange sees it."""

    def start_response(self, event: ResponseStart) -> None:
        """Take status and fields of the response."""

    def respond(self, event: ResponseBody) -> bool:
        """Write a piece of the body; False if the client must read first: await `drain`."""

    async def drain(self, exchange: HttpExchange) -> None:
        """Wait until the client has read."""

    def ask_for_body(self) -> None:
        """The application wants the body: a client that waits for that is told."""

    def application_ended(self, exchange: HttpExchange, error: BaseException | None) -> None:
        """The application returned or raised."""


class HttpExchange:
    """A request, its response, and the application's call."""

    def __init__(
        self, service: Service, session: Answers, request: Request, scope: Scope, began: float
    ) -> None:
        self._service = service
        self._session = session
        self.request = request
        self.scope = scope
        self.client = client_of(scope)
        #: When the head was complete, by the loop's clock.
        self.began = began
        #: Bytes of both bodies, of the response's those that were never sent included.
        self.octets = 0
        self.mailbox = Mailbox()
        #: True once nothing more is sent for it.
        self.is_over = False
        self._call = ApplicationCall(scope, self._ended)
        self._listener_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call the application."""
        request, service = self.request, self._service
        if not request.has_body:
            self.put_body(b"", more=False)
        receive, send, context = self.receive, self.send, service.context.copy()
        if not request.expects_continue:
            # Through the door the body would be asked for without our knowing.
            self.scope["extensions"][DOOR] = Door(receive, send, self.mailbox, context=context)
        self._call.start(service.application, receive, send, service.tasks, context)

    def put_body(self, data: bytes, *, more: bool) -> None:
        """Hand a piece of the request's body on."""
        event = {"type": "http.request", "body": data, "more_body": more}
        self.octets += len(data)
        self.mailbox.put_client(event, len(data))

    def end(self) -> None:
        """The response is complete."""
        self.is_over = True
        if self.mailbox.is_awaited and self._call.is_running:
            loop = self._service.loop
            self._listener_timer = loop.call_later(LISTENER_SECONDS, self._put_disconnect)
        else:
            self._put_disconnect()

    def _put_disconnect(self) -> None:
        self.mailbox.put_last({"type": DISCONNECT})

    def abandon(self) -> None:
        """The client has gone, or was cut off: nothing more is sent."""
        self.is_over = True
        self.hang_up()

    def hang_up(self) -> None:
        """Tell the application that its client has gone; it has `close_timeout` left."""
        self._put_disconnect()
        seconds = self._service.options.timeouts.close_timeout
        # Whoever sees to its own end needs the first span for that.
        self._call.cancel_in(seconds * 2 if self.mailbox.on_gone is not None else seconds)

    def _ended(self, error: BaseException | None) -> None:
        if self._listener_timer is not None:
            self._listener_timer.cancel()
            self._put_disconnect()
        log_end(self.scope, error, complete=self.is_over or self.mailbox.gone)
        self._session.application_ended(self, error)
        if self.octets >= COUNTED_FROM_BYTES:
            service = self._service
            service.garbage.add(self.octets, self.began, service.loop)

    # What the application calls.

    async def receive(self) -> Message:
        """The next event of the client."""
        mailbox = self.mailbox
        if mailbox.client_size == 0:
            if self.is_over or mailbox.gone:
                return {"type": DISCONNECT}
            if self.request.expects_continue:
                self._session.ask_for_body()
        return await mailbox.get_client()

    async def send(self, message: Message) -> None:
        """Send a part of the response; waits while the client does not read.

        Raises:
            ClientDisconnected: If the client has gone.
            LocalProtocolError: If the message is not allowed here; nothing of it is sent.
        """
        kind = message.get("type")
        if kind == "http.response.body":
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            if self.is_over:
                self._check_not_over()
            if not self._session.respond(ResponseBody(body, bool(message.get("more_body")))):
                await self._session.drain(self)
        elif kind == "http.response.start":
            if "status" not in message:
                raise LocalProtocolError("http.response.start needs a status.")
            self._check_not_over()
            start = ResponseStart(message["status"], message.get("headers", ()))
            self._session.start_response(start)
        else:
            raise LocalProtocolError(
                f"Message type {kind!r}: expected http.response.start or http.response.body."
            )

    def _check_not_over(self) -> None:
        if self.is_over:
            raise ClientDisconnected("The response is over, or its client has gone.")


def _as_bytes(body: Any) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise LocalProtocolError(f"A body of {type(body).__name__}: expected bytes.")
