"""A WebSocket on a connection: the wire's events into the application's mailbox, and back.

    bytes -> wire.websocket -> mailbox -> receive(), or the consumer itself through the door
    send() -> wire.websocket -> outlet;  the layer's ready frames -> sink -> outlet

One task runs the application; nothing is created or awaited per message.  The end, in order: the
last event goes into the mailbox; the close frame that is due goes out when the application takes
that event, so that what it says to earlier messages still arrives, or LAST_WORDS_SECONDS later; the
connection closes; an application that stays is cancelled.

    deadline     set while                                     when due
    handshake    the application has not answered              403
    life         it is open                                    close with 1000
    ping         it is open                                    ping, and again
    pong         a ping is out                                 cut, unless anything came meanwhile
    pongs        our pongs fill the outlet                     look again whether it has room
    frame        the client is in the middle of a frame        cut, if it was too slow
    last words   a close frame is due, the application busy    send it, close
    close        our close frame is not answered               close
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from channels.exceptions import ClientDisconnected, NoRouteFound
from channels.fanout.prepared import DEFLATE, PLAIN
from channels.kit.doors import DOOR, Door
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Scope
from channels.server.access import Kind
from channels.server.application import ApplicationCall, describe, log_end, logger
from channels.server.counts import counts
from channels.server.cuts import cut_off
from channels.server.deadlines import Deadlines
from channels.server.request_ids import request_id_of
from channels.server.scope import client_of
from channels.server.service import HttpOutlet, Service
from channels.server.websocket_heartbeat import Heartbeat
from channels.server.websocket_intake import Intake
from channels.server.websocket_messages import (
    ACCEPT,
    CLOSE,
    DENIAL_START,
    SEND,
    Stage,
    check_kind,
    close_of,
    data_of,
)
from channels.server.websocket_opening import opening_of
from channels.wire.request import Request
from channels.wire.websocket import (
    ABNORMAL,
    INTERNAL_ERROR,
    NORMAL,
    TIMED_OUT,
    Ended,
    WebSocket,
    WebSocketPhase,
)

#: How long a close frame that is due waits for an application that is still busy.
LAST_WORDS_SECONDS: Final = 1.0

#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_CONNECTING: Final = Stage.CONNECTING
_DENYING: Final = Stage.DENYING
_OPEN: Final = Stage.OPEN
_CLOSED: Final = Stage.CLOSED
_UNANSWERED: Final = (_CONNECTING, _DENYING)
_UNCLOSED: Final = WebSocketPhase.OPEN


class WebSocketSession:
    """One WebSocket, from the request that asks for it to the end of its application.

    It is also the sink of the layer's ready frames (`form` and `write`).

    Raises:
        RemoteProtocolError: If the handshake is to be refused: answer with the error's status and
            the fields that `wire.handshake.REFUSAL_FIELDS` has for it.  No application was called.
    """

    __slots__ = (
        "_began",
        "_call",
        "_client",
        "_deadlines",
        "_has_application",
        "_heartbeat",
        "_intake",
        "_is_lost",
        "_loop",
        "_machine",
        "_opening",
        "_outlet",
        "_over",
        "_request",
        "_scope",
        "_service",
        "_stage",
        "_timeouts",
        "_told_disconnect",
        "mailbox",
    )

    def __init__(
        self, service: Service, outlet: HttpOutlet, request: Request, scope: Scope
    ) -> None:
        options = service.options
        self._opening = opening = opening_of(
            outlet, request, service.stamp, compress=options.websocket_compression
        )
        self._machine = WebSocket(options.limits, opening.compression)
        self._service = service
        self._outlet = outlet
        self._request = request
        self._scope = scope
        self._client = client_of(scope)
        self._timeouts = options.timeouts
        self._stage = _CONNECTING
        self._loop = loop = service.loop
        self._began = loop.time()
        self._deadlines = Deadlines(loop, self._on_due)
        self._heartbeat = Heartbeat(self._machine, outlet, self._deadlines, self._timeouts)
        self._over: asyncio.Future[None] | None = None
        self._has_application = True
        self._is_lost = False
        self._told_disconnect = False
        self.mailbox = Mailbox()
        self._intake = Intake(service, self._heartbeat, self.mailbox, outlet, self._client)
        self.mailbox.on_room = self._pump
        self.mailbox.on_last_taken = self._finish
        receive, send = self._receive, self._send
        scope["subprotocols"] = opening.subprotocols
        scope["extensions"]["websocket.http.response"] = {}
        context = service.context_of(scope)
        scope["extensions"][DOOR] = Door(receive, send, self.mailbox, self, context)
        self._call = ApplicationCall(scope, self._application_ended)
        self.mailbox.put_client({"type": "websocket.connect"})
        self._record("websocket.connecting", None)
        self._deadlines.set("handshake", self._timeouts.handshake_timeout)
        self._call.start(service.application, receive, send, service.tasks, context)

    # What the connection calls.

    def data_received(self, data: bytes) -> None:
        """Bytes came in; before the handshake is answered they wait, and the socket with them."""
        self._machine.receive_data(data)
        self._intake.received_bytes += len(data)
        self._heartbeat.heard = True
        self._pump()

    def eof_received(self) -> bool:
        """The peer will send no more; a close frame can still go out."""
        self._machine.receive_eof()
        if self._stage in _UNANSWERED:
            self._tell_last(ABNORMAL, "")
            self._shut()
        else:
            self._pump()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """The socket is gone: tell the application, and give it its time to end."""
        self._is_lost = True
        self._stage = _CLOSED
        self._deadlines.close()
        self._machine.release()
        slow = self._outlet.cut_reason
        said = self._machine.ended or (Ended(TIMED_OUT, slow) if slow else Ended(ABNORMAL, ""))
        self._tell_last(said.code, said.reason)
        if self._opening.is_accepted:
            counts.on_websocket_closed(said.code)
        if self._opening.can_be_refused:
            self._record("websocket.disconnected", said.code)
        self._settle()

    async def shutdown(self, code: int, idle_seconds: float = 0.0) -> None:  # noqa: ARG002
        """Close with `code` and wait until connection and application are gone."""
        self._tell_last(code, "")
        if self._stage in _UNANSWERED:
            self._refuse(503)
        elif self._stage is _OPEN:
            self._leave(code)
        if self._is_lost and not self._has_application:
            return
        if self._over is None:
            self._over = self._service.loop.create_future()
        await asyncio.shield(self._over)

    # What the layer calls, through the sink.

    @property
    def form(self) -> str | None:
        """The form of frames that may be written now, or None."""
        is_open = self._stage is _OPEN and self._machine.phase is _UNCLOSED
        if not is_open or self._outlet.is_full:
            return None
        return DEFLATE if self._machine.takes_deflate else PLAIN

    def write(self, data: bytes) -> None:
        """Write frames; those of one turn of the loop leave together."""
        self._outlet.write(data)

    # From the wire to the mailbox.

    def _pump(self) -> None:
        """Take what the client sent, unless that has to wait."""
        if self._is_lost or self._intake.rests:
            return
        ended = self._intake.pump(self._stage)
        if ended is not None:
            self._on_ended(ended)
        if self._intake.rests:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._intake.rests = False
        self._pump()

    def _on_ended(self, ended: Ended) -> None:
        self._tell_last(ended.code, ended.reason)
        if self._machine.phase is WebSocketPhase.CLOSED:
            self._shut()
        elif self._has_application:
            self._deadlines.set("last words", LAST_WORDS_SECONDS)
        else:
            self._finish()

    # What the application calls.

    async def _receive(self) -> Message:
        """The client's next event.

        Raises:
            ClientDisconnected: After `websocket.disconnect`: nothing can follow it.  (To repeat it
                would let an application that overlooks it spin without ever giving way.)
        """
        if self._told_disconnect:
            raise ClientDisconnected("The WebSocket has ended: there is nothing to receive.")
        intake, is_there = self._intake, self.mailbox.client_size > 0
        if is_there and intake.is_greedy():
            await asyncio.sleep(0)
        event = await self.mailbox.get_client()
        if not is_there:
            intake.turned()
        self._told_disconnect = event["type"] == "websocket.disconnect"
        return event

    async def _send(self, message: Message) -> None:
        """Take an ASGI message; waits only while more than the write buffer's bound is unsent.

        Raises:
            LocalProtocolError: If the message is malformed or comes at the wrong time.
            ClientDisconnected: If the connection is closed.
        """
        kind = message.get("type")
        # The table of stages has nothing against what nearly all messages are.
        if kind != SEND or self._stage is not _OPEN:
            kind = check_kind(self._stage, message)
        if kind == SEND:
            data, outlet = data_of(message), self._outlet
            if outlet.is_closing:
                self._check_connected()
            if data is not None:
                outlet.write(self._machine.frame_of(data))
            if outlet.is_full:
                await outlet.drain()
                self._check_connected()
        elif kind == ACCEPT:
            self._accept(message)
        elif kind == CLOSE:
            self._close(message)
        elif kind == DENIAL_START:
            self._opening.start_denial(message)
            self._stage = _DENYING
        elif kind is not None:
            self._deny(message)
            if self._outlet.is_full:
                await self._outlet.drain()

    def _check_connected(self) -> None:
        # A connection that was cut off is closing before it is lost.
        if self._outlet.is_closing:
            raise ClientDisconnected(
                self._outlet.cut_reason
                or "The WebSocket was closed: the client did not get it all."
            )

    def _accept(self, message: Message) -> None:
        self._opening.accept(message)
        self._stage = _OPEN
        self._record("websocket.connected", 101)
        self._deadlines.clear("handshake")
        self._deadlines.set("life", self._timeouts.websocket_timeout)
        self._heartbeat.start()
        self._pump()

    def _close(self, message: Message) -> None:
        code, reason = close_of(message)
        if self._stage is _CONNECTING:
            self._refuse(403)
        elif self._stage is _OPEN:
            self._leave(code, reason)

    def _deny(self, message: Message) -> None:
        self._opening.deny(message)
        if self._opening.is_denied:
            self._record("websocket.rejected", self._opening.status)
            self._tell_last(ABNORMAL, "")
            self._shut()

    def _application_ended(self, error: BaseException | None) -> None:
        """Answer for an application that ended before its WebSocket did."""
        self._has_application = False
        log_end(self._scope, error, complete=self._stage is _CLOSED or self.mailbox.gone)
        if self._stage in _UNANSWERED:
            is_refused = error is None or isinstance(error, NoRouteFound)
            self._refuse(403 if is_refused else 500)
        elif self._stage is _OPEN and self._machine.phase is _UNCLOSED:
            self._leave(NORMAL if error is None else INTERNAL_ERROR)
        else:
            self._finish()
        self._settle()

    # The end.

    def _tell_last(self, code: int, reason: str) -> None:
        """Tell the application that the client has gone; it has a while to end by itself."""
        self.mailbox.put_last({"type": "websocket.disconnect", "code": code, "reason": reason})
        # Whoever sees to its own end needs the first span for that.
        spans = 1 if self.mailbox.on_gone is None else 2
        self._call.cancel_in(self._timeouts.close_timeout * spans)

    def _refuse(self, status: int) -> None:
        """Answer the handshake with an error, unless another refusal is on its way already."""
        if self._opening.can_be_refused:
            self._opening.refuse(status)
        self._record("websocket.rejected", self._opening.status)
        self._tell_last(ABNORMAL, "")
        self._shut()

    def _leave(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, or end the one that the peer began."""
        if self._machine.phase is not _UNCLOSED:
            self._finish()
            return
        self._machine.send_close(code, reason)
        self.write(self._machine.data_to_send())
        self._stage = _CLOSED
        self._deadlines.set("close", self._timeouts.close_timeout)
        self._pump()

    def _finish(self) -> None:
        """Send the close frame that is due to the peer, and close."""
        phase = self._machine.phase
        if phase not in {WebSocketPhase.ANSWERING, WebSocketPhase.FAILING}:
            return
        self._machine.finish()
        self.write(self._machine.data_to_send())
        if phase is WebSocketPhase.FAILING:
            # The peer may be in the middle of a message: a reset would take the close code away.
            self._stage = _CLOSED
            self._outlet.linger()
        else:
            self._shut()

    def _shut(self) -> None:
        """Close once everything is sent."""
        self._stage = _CLOSED
        self._outlet.close()

    def _cut(self, reason: str) -> None:
        self._tell_last(ABNORMAL, reason)
        self._stage = _CLOSED
        self._outlet.abort()

    def _settle(self) -> None:
        if self._is_lost and not self._has_application:
            # Else session and mailbox would hold each other, and wait for the garbage collector.
            self.mailbox.on_room = self.mailbox.on_last_taken = None
            if self._over is not None and not self._over.done():
                self._over.set_result(None)

    def _record(self, kind: Kind, status: int | None) -> None:
        seconds = self._loop.time() - self._began
        line, size, request_id = self._request.line, self._opening.size, request_id_of(self._scope)
        self._service.record(kind, line, status, size, self._client, seconds, "", request_id)

    # Deadlines: each passes once, and means something only in the stage that it was set for.

    def _on_due(self, name: str) -> None:
        _ON_DUE[name](self)

    def _handshake_due(self) -> None:
        if self._stage is _CONNECTING:
            seconds = self._timeouts.handshake_timeout
            logger.warning(
                "Neither accepted nor refused within %g s: %s", seconds, describe(self._scope)
            )
            self._refuse(403)
        elif self._stage is _DENYING:
            self._refuse(403)

    def _life_due(self) -> None:
        if self._stage is _OPEN:
            self._leave(NORMAL)
            self._tell_last(NORMAL, "")

    def _ping_due(self) -> None:
        if self._stage is not _OPEN or self._machine.phase is not _UNCLOSED:
            return
        self._heartbeat.ping()

    def _pong_due(self) -> None:
        # While the socket is left unread, its silence is ours.
        heartbeat = self._heartbeat
        is_paused = self._intake.is_paused
        if self._stage is _OPEN and not (heartbeat.heard or is_paused or heartbeat.is_read):
            seconds = self._timeouts.ping_timeout
            cut_off("no_pong", self._client, f"no answer to a ping within {seconds} s")
            self._cut("No pong came.")

    def _frame_due(self) -> None:
        if self._intake.is_too_slow():
            self._cut("A frame came too slowly.")

    def _pongs_due(self) -> None:
        if self._heartbeat.look_for_room():
            self._pump()

    def _close_due(self) -> None:
        self._tell_last(ABNORMAL, "")
        self._shut()


_ON_DUE: Final[dict[str, Callable[[WebSocketSession], None]]] = {
    "close": WebSocketSession._close_due,
    "frame": WebSocketSession._frame_due,
    "handshake": WebSocketSession._handshake_due,
    "last words": WebSocketSession._finish,
    "life": WebSocketSession._life_due,
    "ping": WebSocketSession._ping_due,
    "pong": WebSocketSession._pong_due,
    "pongs": WebSocketSession._pongs_due,
}
