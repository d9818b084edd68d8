"""One WebSocket between its client and the workers.

    client                     queue                      reply              client
    handshake               -> websocket.connect          accept          -> accepted
                               full: 503, at once         close, no accept-> 403
    message                 -> websocket.receive          text, bytes     -> message (accepts first)
                               full: the socket is left   close           -> close frame
                               unread, then 1013
    gone, closed by whom    -> websocket.disconnect
    ever

`order` numbers what is put into the queues, from 0 for the connect message, without a gap.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from channels.consumer.line import Line
from channels.exceptions import ClientDisconnected, LocalProtocolError, MessageTooLarge
from channels.kit.doors import find_sink
from channels.kit.mailbox import DEFAULT_BOUNDS, MailboxBounds
from channels.kit.types import Message, Receive, Scope, Send
from channels.legacy.interface.inlet import Inlet
from channels.legacy.interface.messages import SocketReply, connect_message, socket_reply
from channels.legacy.interface.reply_lane import FrameCache, ReplyLane

CONNECT: Final = "websocket.connect"
RECEIVE: Final = "websocket.receive"
DISCONNECT: Final = "websocket.disconnect"
REPLY_PREFIX: Final = "websocket.send"

_NORMAL: Final = 1000
_TOO_BIG: Final = 1009
_TRY_AGAIN_LATER: Final = 1013
_BUSY: Final = b"No worker can take this connection now."


class SocketStage(enum.Enum):
    """How far a WebSocket is."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


class SocketBridge:
    """Carries a WebSocket's events to the workers and their replies to the client."""

    __slots__ = ("_channel", "_frames", "_inlet", "_line", "_order", "_scope", "_send", "_stage")

    def __init__(
        self, inlet: Inlet, frames: FrameCache, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._inlet = inlet
        self._frames = frames
        self._scope = scope
        self._send = send
        self._stage = SocketStage.CONNECTING
        self._channel = ""
        self._order = 0
        self._line = Line(scope, receive, DEFAULT_BOUNDS, None)

    async def run(self) -> None:
        """Carry on until the WebSocket is over."""
        try:
            if (await self._line.get())["type"] != DISCONNECT:
                await self._open()
        finally:
            await self._line.close()

    async def _open(self) -> None:
        layer, line = self._inlet.layer, self._line
        self._channel = channel = await layer.new_channel(REPLY_PREFIX)
        sink = find_sink(self._scope, self._send)
        line.mailbox.bounds = _bounds(layer, channel)
        line.attach(layer, channel, sink, ReplyLane(line.mailbox, sink, self._frames))
        if not await self._offer(CONNECT, connect_message(self._scope, channel)):
            self._inlet.give_up(CONNECT)
            await self._deny()
            return
        while True:
            event = await line.get()
            if line.mailbox.handling_layer:
                await self._reply(event)
            elif event["type"] == RECEIVE:
                await self._received(event)
            else:
                await self._gone(event)
                return

    # To the workers.

    async def _received(self, event: Message) -> None:
        if self._stage is SocketStage.CLOSED:
            return
        kind = "text" if event.get("text") is not None else "bytes"
        try:
            if not await self._insist(RECEIVE, {kind: event[kind]}):
                self._inlet.give_up(RECEIVE)
                await self._close(_TRY_AGAIN_LATER)
        except MessageTooLarge as error:
            self._inlet.counts["too_large"] += 1
            self._inlet.warn("too_large", f"Closed a WebSocket with {_TOO_BIG}: {error}")
            await self._close(_TOO_BIG)

    async def _gone(self, event: Message) -> None:
        self._stage = SocketStage.CLOSED
        if not await self._insist(DISCONNECT, {"code": event.get("code", 1006)}):
            self._inlet.give_up(DISCONNECT)

    async def _insist(self, channel: str, content: Message) -> bool:
        message = {
            "reply_channel": self._channel,
            "path": self._scope["path"],
            "order": self._order,
            **content,
        }
        taken = await self._inlet.insist(
            channel, message, self._inlet.options.full_timeout, self._reply_to_waiting
        )
        self._order += taken
        return taken

    async def _offer(self, channel: str, message: Message) -> bool:
        taken = await self._inlet.offer(channel, message)
        self._order += taken
        return taken

    # From the workers.

    async def _reply_to_waiting(self) -> bool:
        """Take the replies that wait, while the queue takes nothing."""
        while (reply := self._line.mailbox.get_layer_nowait()) is not None:
            await self._reply(reply)
        return True

    async def _reply(self, message: Message) -> None:
        """Do what a reply asks for; one that cannot be done is dropped."""
        if self._stage is SocketStage.CLOSED:
            self._inlet.counts["late"] += 1
            return
        try:
            await self._say(socket_reply(message))
        except LocalProtocolError as error:
            self._inlet.drop("websocket", error)
        except ClientDisconnected:
            self._inlet.counts["late"] += 1

    async def _say(self, reply: SocketReply) -> None:
        if self._stage is SocketStage.CONNECTING:
            if reply.accept is False or not (reply.accept or reply.data):
                if reply.accept is False or reply.close is not None:
                    await self._close(_NORMAL)
                return
            await self._send({"type": "websocket.accept", "subprotocol": self._subprotocol()})
            self._stage = SocketStage.OPEN
        for part in reply.data:
            kind = "text" if isinstance(part, str) else "bytes"
            await self._send({"type": "websocket.send", kind: part})
        if reply.close is not None:
            await self._close(reply.close)

    def _subprotocol(self) -> str | None:
        offered = self._scope.get("subprotocols", ())
        return next((each for each in offered if each in self._inlet.options.ws_protocol), None)

    async def _close(self, code: int) -> None:
        """Close, or refuse the handshake with 403; the client's last event follows."""
        await self._send({"type": "websocket.close", "code": code})
        self._stage = SocketStage.CLOSED

    async def _deny(self) -> None:
        """Refuse the handshake with 503."""
        self._stage = SocketStage.CLOSED
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._send({"type": "websocket.close"})
            return
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
        start = {"type": "websocket.http.response.start", "status": 503, "headers": headers}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": _BUSY})


def _bounds(layer: Any, channel: str) -> MailboxBounds:
    """How many replies may wait: what the layer allows this channel."""
    if not hasattr(layer, "get_capacity_bytes"):
        return DEFAULT_BOUNDS
    capacity, octets = layer.get_capacity(channel), layer.get_capacity_bytes(channel)
    if (capacity, octets) == (DEFAULT_BOUNDS.capacity, DEFAULT_BOUNDS.capacity_bytes):
        return DEFAULT_BOUNDS
    return MailboxBounds(capacity, octets)
