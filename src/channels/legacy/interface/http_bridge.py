"""One HTTP request between its client and the workers.

    client                        queue                       reply            client
    head and a small body      -> http.request                status ...    -> response
    head and 64 KiB of body    -> http.request, body_channel  content       -> a further piece
    the rest of the body       -> the body channel
                                  the ack_channel of a      ack_channel     -> (taken)
    took that piece, or gone   -> piece, if it has one
    gone before the response   -> http.disconnect
    is whole

A full queue is answered with 503 at once; no answer within the server's `http_timeout` by the
server itself.  A full body channel leaves the client's socket unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any, Final

from channels.consumer.line import Line
from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.kit.mailbox import MailboxBounds
from channels.kit.types import Message, Receive, Scope, Send
from channels.legacy.interface.inlet import BODY_CHANNEL, Inlet
from channels.legacy.interface.messages import request_message, response_part
from channels.legacy.pacing import ACK_CHANNEL, CLOSED, WINDOW

REQUEST: Final = "http.request"
DISCONNECT: Final = "http.disconnect"
REPLY_PREFIX: Final = "http.response"

#: Pieces of a response that wait; their bytes are what `response_buffer_bytes` bounds.
_MOST_PIECES: Final = 10_000
_BUSY: Final = b"No worker can take this request now."


class RequestBridge:
    """Carries a request to the workers and their response to the client."""

    def __init__(self, inlet: Inlet, scope: Scope, receive: Receive, send: Send) -> None:
        self._inlet = inlet
        self._scope = scope
        self._send = send
        self._channel = ""
        self._body = b""
        #: Where the rest of a large body goes.
        self._body_channel = ""
        self._is_body_whole = False
        #: True once a piece was given up: what follows it would make another body.
        self._is_body_broken = False
        #: Where a worker waits for its client to take the response.
        self._ack_channel: Any = ""
        #: True once a worker may know of the request.
        self._is_sent = False
        self._has_begun = False
        self._is_whole = False
        self._is_cut = False
        self._task = asyncio.current_task()
        self._line = Line(scope, receive, self._bounds(), None)
        self._line.mailbox.on_overflow = self._overflow

    def _bounds(self) -> MailboxBounds:
        capabilities = getattr(self._inlet.layer, "capabilities", None)
        # Over such a layer the worker hears that the channel is full, and tries again.
        is_direct = capabilities is not None and capabilities.is_direct
        octets = self._inlet.options.response_buffer_bytes
        return MailboxBounds(_MOST_PIECES, octets, "drop_new" if is_direct else "close")

    async def run(self) -> None:
        """Carry on until the response is whole or the client has gone."""
        layer, line = self._inlet.layer, self._line
        try:
            self._channel = await layer.new_channel(REPLY_PREFIX)
            line.attach(layer, self._channel, None)
            await self._serve()
        except ClientDisconnected:
            await self._gone()
        except asyncio.CancelledError:
            if not self._is_cut or self._task is None or self._task.uncancel():
                raise
            # The response ends here, unfinished: the server lets the client see that.
            await self._gone()
        finally:
            await line.close()

    async def _serve(self) -> None:
        line = self._line
        while not self._is_whole:
            event = await line.get()
            if line.mailbox.handling_layer:
                await self._reply(event)
            elif event["type"] == REQUEST:
                await self._take_body(event)
            else:
                await self._gone()
                return

    # To the workers.

    async def _take_body(self, event: Message) -> None:
        piece, more = event.get("body", b""), bool(event.get("more_body"))
        if self._is_body_broken:
            return
        self._is_body_whole = not more
        if self._is_sent:
            await self._put_piece(piece, more)
            return
        self._body += piece
        if not more or len(self._body) > self._inlet.options.inline_body_bytes:
            await self._put_request(more)

    async def _put_request(self, more: bool) -> None:
        most = self._inlet.options.inline_body_bytes
        inline, rest, self._body = self._body[:most], self._body[most:], b""
        message = request_message(self._scope, self._channel, inline)
        message[WINDOW] = self._inlet.options.response_buffer_bytes // 2
        if more or rest:
            self._body_channel = f"{BODY_CHANNEL}.{secrets.token_hex(16)}"
            message["body_channel"] = self._body_channel
        self._is_sent = await self._inlet.offer(REQUEST, message)
        if not self._is_sent:
            self._inlet.give_up(REQUEST)
            await self._refuse()
        elif rest:
            await self._put_piece(rest, more)

    async def _put_piece(self, piece: bytes, more: bool) -> None:
        """Offer a piece of the body until it is taken, the response is whole or the client gone."""
        message = {"content": piece, "more_content": more}
        if not await self._inlet.insist(self._body_channel, message, None, self._is_wanted):
            self._is_body_whole, self._is_body_broken = False, True

    async def _is_wanted(self) -> bool:
        """Take the replies that wait; False if nobody waits for the rest of the body."""
        while (reply := self._line.mailbox.get_layer_nowait()) is not None:
            await self._reply(reply)
        return not (self._is_whole or self._line.mailbox.gone)

    async def _gone(self) -> None:
        """Tell the workers that the client has gone, once each if their queues take it."""
        if not self._is_sent:
            return
        while (part := self._line.mailbox.get_layer_nowait()) is not None:
            self._ack_channel = part.get(ACK_CHANNEL, self._ack_channel)
        await self._answer_worker({CLOSED: True})
        message = {"reply_channel": self._channel, "path": self._scope["path"]}
        if not await self._inlet.offer(DISCONNECT, message):
            # Not worth a line: most sites have no consumer for it.
            self._inlet.counts[f"full.{DISCONNECT}"] += 1
        if self._body_channel and not self._is_body_whole:
            seconds = self._inlet.options.full_timeout
            await self._inlet.insist(self._body_channel, {"closed": True}, seconds)

    # From the workers.

    async def _reply(self, message: Message) -> None:
        """Send a part of the response; one that cannot be sent is dropped."""
        if "request" in message and "status" not in message:
            self._inlet.counts["pushes_ignored"] += 1  # a push: HTTP/2 alone has it
            return
        self._ack_channel = message.get(ACK_CHANNEL, self._ack_channel)
        try:
            part = response_part(message, is_first=not self._has_begun)
            if part.status is not None:
                await self._send(_start(part.status, part.headers))
                self._has_begun = True
            self._is_whole = not part.more
            body = {"type": "http.response.body", "body": part.content, "more_body": part.more}
            await self._send(body)
        except LocalProtocolError as error:
            self._is_whole = False
            self._inlet.drop("http", error)
        else:
            if ACK_CHANNEL in message:
                await self._answer_worker({})

    async def _answer_worker(self, answer: Message) -> None:
        """Tell a worker, if one waits for it, how its client takes the response."""
        if not self._ack_channel:
            return
        try:
            await self._inlet.offer(self._ack_channel, answer)
        except TypeError as error:
            self._ack_channel = ""
            self._inlet.drop("http", LocalProtocolError(f"{ACK_CHANNEL!r}: {error}"))

    async def _refuse(self) -> None:
        """Answer 503: come again."""
        self._is_whole = True
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
        with contextlib.suppress(ClientDisconnected):
            await self._send(_start(503, headers))
            await self._send({"type": "http.response.body", "body": _BUSY})

    def _overflow(self) -> None:
        """A worker sends faster than the client reads, and nothing tells it to wait: end this."""
        if self._is_cut or self._task is None:
            return
        self._is_cut = True
        self._inlet.counts["cut"] += 1
        most = self._inlet.options.response_buffer_bytes
        self._inlet.warn(
            "cut",
            f"A response was cut: over {most} bytes of it waited for its client "
            "(response_buffer_bytes).",
        )
        self._task.cancel()


def _start(status: int, headers: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}
