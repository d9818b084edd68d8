"""One connection in a worker: an application that is called as a server would, and its mailbox.

    edge's event -> mailbox -> receive(), or the consumer itself through the door
    send() -> checked as the server checks it -> the edge

An event is acknowledged when its handler has returned, which shows when the next one is asked for.

Hand-over, for a consumer that has given its state to its placement: what was not handled goes
aside, `websocket.release` comes in its place, and the consumer answers it by `Placement.release`,
once no layer event waits either.  The edge then offers the connection, and sends its next owner
what was set aside.  There `websocket.resume` comes in the place of `websocket.connect`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Final

import msgpack

from channels.decoupled.backlog import LAST_EVENTS
from channels.decoupled.consumer_state import encode_state
from channels.decoupled.messages import ACK_BYTES, ACK_EVENTS, size_of
from channels.decoupled.worker_host import WorkerHost
from channels.decoupled.worker_mailbox import RELEASE, RESUME, WorkerMailbox
from channels.decoupled.worker_response import response_events
from channels.exceptions import ClientDisconnected, MessageTooLarge
from channels.kit.doors import DOOR, Door
from channels.kit.tasks import TaskScope
from channels.kit.types import Application, Message, Scope
from channels.server.application import ApplicationCall, log_end
from channels.server.request_ids import enter_request
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

logger: Final = logging.getLogger("django.channels.decoupled")

SERVICE_RESTART: Final = 1012
ABNORMAL: Final = 1006


class WorkerConnection:
    """One WebSocket or request, and the consumer's placement there.

    Args:
        opened: The edge's `open`.
    """

    __slots__ = (
        "_acknowledged",
        "_aside",
        "_call",
        "_crash_told",
        "_credit",
        "_host",
        "_is_releasing",
        "_on_crash",
        "_room",
        "_snapshot",
        "_stage",
        "_start",
        "_state",
        "_told_disconnect",
        "_unsent",
        "_unsent_bytes",
        "_untold",
        "_wants_release",
        "edge",
        "generation",
        "id",
        "is_complete",
        "is_lost",
        "is_released",
        "is_websocket",
        "mailbox",
        "scope",
        "socket",
    )

    def __init__(self, edge: str, opened: Message, scope: Scope, host: WorkerHost) -> None:
        self.edge = edge
        self.id: int = opened["id"]
        self.generation: int = opened["generation"]
        self.socket: str = opened["socket"]
        self.scope = scope
        self.is_websocket: bool = scope["type"] == "websocket"
        self._host = host
        self.mailbox = WorkerMailbox(opened["start"], self._on_handled)
        self._start = self._acknowledged = opened["start"]
        self._credit = (opened["credit"], opened["credit_bytes"])
        self._stage = Stage.OPEN if opened["is_accepted"] else Stage.CONNECTING
        #: Sizes of what was sent and is not with the socket.  Short: a deque would take 0.7 KiB.
        self._unsent: list[int] = []
        self._unsent_bytes = 0
        self._untold = 0
        #: Set when there may be room again, made by whoever waits for it.
        self._room: asyncio.Event | None = None
        self._told_disconnect = False
        #: True once the connection is another's, or the edge has gone.
        self.is_lost = False
        self.is_released = False
        #: True once a response is complete.
        self.is_complete = False
        self._snapshot: Callable[[], Mapping[str, Any]] | None = None
        self._on_crash = "close"
        self._crash_told = False
        self._state: bytes | None = opened.get("state")
        self._wants_release = self._is_releasing = False
        #: Events that arrived while it is being handed over.
        self._aside: list[Message] = []
        receive, send = self.receive, self.send
        context = copy_context()
        enter_request(context, scope)
        scope["extensions"][DOOR] = Door(receive, send, self.mailbox, None, context, self)
        self._call = ApplicationCall(scope, self._on_end)
        if self._stage is Stage.OPEN:
            self.mailbox.put_client({"type": RESUME, "placement": self, "state": self._decoded()})

    @property
    def can_be_handed_over(self) -> bool:
        """True if the consumer has given its state, and a client to hand over is there."""
        return self._snapshot is not None and self._stage is Stage.OPEN and not self.mailbox.gone

    def start(self, application: Application, tasks: TaskScope) -> None:
        """Call the application."""
        door: Door = self.scope["extensions"][DOOR]
        assert door.context is not None
        self._call.start(application, door.receive, door.send, tasks, door.context)

    # From the edge.

    def on_event(self, event: Message) -> None:
        """An event of the client's."""
        if self._is_releasing:
            self._aside.append(event)
        elif event["type"] in LAST_EVENTS:
            self._tell_last(event)
        else:
            self.mailbox.put_client(event, size_of(event))

    def on_taken(self, count: int) -> None:
        """So many of the events that were sent are with the socket."""
        taken = self._unsent[: max(0, count - self._untold)]
        del self._unsent[: len(taken)]
        self._unsent_bytes -= sum(taken)
        self._untold += len(taken)
        self.wake()

    def wake(self) -> None:
        """Look again: there may be room for what is to be sent."""
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def lose(self) -> None:
        """It is another worker's, or its edge has gone."""
        if self.is_lost:
            return
        self.is_lost = True
        self._is_releasing = False
        if self.is_websocket:
            self._tell_last({"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""})
        else:
            self._tell_last({"type": "http.disconnect"})

    def _tell_last(self, event: Message) -> None:
        if self.is_lost:
            self._close_stage()
        else:
            # What the consumer says to the events before it may still arrive.
            self.mailbox.on_last_taken = self._close_stage
        self.wake()
        self.mailbox.put_last(event)
        # As the server has it: whoever sees to its own end needs the first span for that.
        spans = 1 if self.mailbox.on_gone is None else 2
        self._call.cancel_in(self._host.options.close_timeout * spans)

    def _close_stage(self) -> None:
        self._stage = Stage.CLOSED

    # What the application calls.

    async def receive(self) -> Message:
        """The client's next event.

        Raises:
            ClientDisconnected: After `websocket.disconnect`.
        """
        if self._told_disconnect:
            if self.is_websocket:
                raise ClientDisconnected("The WebSocket has ended: there is nothing to receive.")
            return {"type": "http.disconnect"}
        event = await self.mailbox.get_client()
        self._told_disconnect = event["type"] in LAST_EVENTS
        return event

    async def send(self, message: Message) -> None:
        """Send an event to the client; waits while its socket takes no more.

        Raises:
            LocalProtocolError: If the message is malformed or comes at the wrong time.
            ClientDisconnected: If the client has gone.
            MessageTooLarge: If it is over `link_message_bytes`.
        """
        for event in self._checked(message):
            await self._send(event)

    def _checked(self, message: Message) -> list[Message]:
        """What is to be sent for a message: the same, in pieces, or nothing."""
        if not self.is_websocket:
            if self.mailbox.gone or self.is_complete:
                raise ClientDisconnected("The response is over, or its client has gone.")
            events = response_events(message)
            self.is_complete = events[-1].get("more_body") is False
            return events
        kind = check_kind(self._stage, message)
        if kind == SEND:
            data = data_of(message)
            if data is None:
                return []
            return [{"type": SEND, ("text" if isinstance(data, str) else "bytes"): data}]
        if kind == CLOSE:
            if self._stage is Stage.CLOSED:
                return []
            self._stage = Stage.CLOSED
            code, reason = close_of(message)
            return [{"type": CLOSE, "code": code, "reason": reason}]
        if kind == ACCEPT:
            self._stage = Stage.OPEN
        elif kind == DENIAL_START:
            self._stage = Stage.DENYING
        elif kind is None:
            return []
        elif not message.get("more_body"):
            self._stage = Stage.CLOSED
        return [message]

    async def _send(self, event: Message) -> None:
        size = size_of(event)
        most = self._host.options.link_message_bytes
        if size > most:
            raise MessageTooLarge(
                f"An event of {size} bytes is over link_message_bytes={most}: send it in parts."
            )
        while not self._may_send:
            if self.mailbox.gone or self.is_lost:
                raise ClientDisconnected("The connection was closed: the client did not get it.")
            self._room = self._room or asyncio.Event()
            await self._room.wait()
        self._unsent.append(size)
        self._unsent_bytes += size
        self._host.post(self, "send", size, event=event)

    @property
    def _may_send(self) -> bool:
        events, octets = self._credit
        unsent = self._unsent
        if unsent and (len(unsent) >= events or self._unsent_bytes >= octets):
            return False
        return self._host.has_room(self.edge)

    # Acknowledgements and state.

    def _on_handled(self) -> None:
        """All events up to `mailbox.handled` are handled."""
        if self.is_websocket and self._stage is Stage.CONNECTING:
            # Until it is answered, another worker can begin anew.
            return
        if self._on_crash != "close":
            self._acknowledge(self._changed_state())
        elif (
            self.mailbox.handled - self._acknowledged >= ACK_EVENTS
            or self.mailbox.taken_bytes >= ACK_BYTES
        ):
            self._acknowledge(None)
        if self._wants_release:
            self.request_release()

    def _acknowledge(self, state: bytes | None) -> None:
        if self.is_lost or self.is_released:
            return
        self._acknowledged = self.mailbox.handled
        self.mailbox.taken_bytes = 0
        fields: dict[str, Any] = {}
        if not self._crash_told and self._on_crash != "close":
            self._crash_told = True
            fields["on_crash"] = self._on_crash
        size = len(state or b"")
        self._host.post(self, "ack", size, sequence=self._acknowledged, state=state, **fields)

    def keep(self, snapshot: Callable[[], Mapping[str, Any]], on_crash: str) -> None:
        """As `Placement.keep`."""
        self._snapshot = snapshot
        self._on_crash = on_crash

    def _changed_state(self) -> bytes | None:
        """The consumer's state, if it is another than the edge has."""
        state = self._encoded()
        if state is None or (state == self._state and self._crash_told):
            return None
        self._state = state
        return state

    def _encoded(self) -> bytes | None:
        """The consumer's state; None, and a line in the log, if it cannot be carried."""
        if self._snapshot is None:
            return None
        state = encode_state(self._snapshot, self._host.options.max_state_bytes, self.scope)
        if state is None:
            self._snapshot, self._on_crash = None, "close"
        return state

    def _decoded(self) -> Any:
        return None if self._state is None else msgpack.unpackb(self._state, strict_map_key=False)

    # Hand-over.

    def request_release(self) -> None:
        """Hand it over as soon as the handler that runs has returned, if it can be."""
        self._wants_release = True
        if self._is_releasing or not self.can_be_handed_over:
            return
        self._is_releasing = True
        self._aside = self.mailbox.take_waiting()
        self.mailbox.put_client({"type": RELEASE, "placement": self})

    async def release(self) -> bool:
        """As `Placement.release`; called by the handler of `websocket.release`."""
        if not self._is_releasing or self.mailbox.gone:
            return False
        if self.mailbox.layer_size:
            # First what came from the layer: nobody else has it.
            self.mailbox.put_client({"type": RELEASE, "placement": self})
            return False
        state = self._encoded()
        if state is None:
            self._stay()
            return False
        self.is_released = True
        self._stage = Stage.CLOSED
        sequence = self.mailbox.handled
        self._host.post(self, "release", len(state), sequence=sequence, state=state)
        self._host.ended(self)
        return True

    def _stay(self) -> None:
        """It cannot be handed over after all: go on with what was set aside."""
        self._is_releasing = self._wants_release = False
        aside, self._aside = self._aside, []
        for event in aside:
            self.on_event(event)

    def restart(self) -> None:
        """Close it, because the worker stops; a request is cut."""
        if self.is_websocket:
            if self._stage is Stage.OPEN:
                self._stage = Stage.CLOSED
                event = {"type": CLOSE, "code": SERVICE_RESTART, "reason": ""}
                self._host.post(self, "send", event=event)
            elif self._stage is not Stage.CLOSED:
                self._give_back()
        else:
            self._call.cancel_in(0.0)

    def _give_back(self) -> None:
        """Let another worker begin anew with a handshake that is not answered."""
        self._host.post(self, "release", sequence=self._start, state=None)
        self.lose()

    # The end.

    def _on_end(self, error: BaseException | None) -> None:
        """The application has returned or raised."""
        is_over = self.is_complete or self._stage is Stage.CLOSED or self.mailbox.gone
        log_end(self.scope, error, complete=is_over)
        self.mailbox.release()
        if not (self.is_lost or self.is_released):
            has_failed = error is not None and not isinstance(error, asyncio.CancelledError)
            self._host.post(self, "end", is_failed=has_failed and not self.mailbox.gone)
        self._host.ended(self)
