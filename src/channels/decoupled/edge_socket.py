"""The client's side of a connection at the edge: what is written to its socket.

The task that the server runs for the connection does all waiting, for a socket that takes no more.
Everything else is done in the turn of the loop in which it comes, by methods that do not wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

from channels.decoupled.edge_host import EdgeHost
from channels.exceptions import WorkerLost, mark_logged
from channels.fanout.prepared import PreparedMessage
from channels.kit.doors import Sink, find_sink
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message, Scope, Send

#: RFC 6455 section 7.4.2's registry: "Try Again Later".
TRY_AGAIN_LATER: Final = 1013


class EdgeSocket:
    """One WebSocket or request, as its client sees it."""

    __slots__ = (
        "_failure",
        "_host",
        "_is_closed",
        "_is_cut",
        "_mailbox",
        "_outgoing",
        "_send",
        "_sink",
        "_waiter",
        "has_socket",
        "is_websocket",
        "scope",
    )

    def __init__(self, scope: Scope, host: EdgeHost) -> None:
        self.scope = scope
        self.is_websocket: bool = scope["type"] == "websocket"
        #: True until the server has nothing more to do with it.
        self.has_socket = True
        self._host = host
        self._failure: Exception | None = None
        #: True once the end of what is sent to the client is in `_outgoing`.
        self._is_closed = False
        #: True once the client takes nothing more.
        self._is_cut = False
        self._mailbox: Mailbox = Mailbox(host.bounds)
        self._send: Send | None = None
        #: Takes ready frames, from the time when the WebSocket is accepted.
        self._sink: Sink | None = None
        #: Events on their way to the client, and the generation of their sender.  Short, and empty
        #: nearly always: a deque would take 0.7 KiB more.
        self._outgoing: list[tuple[Message, int, int]] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def _is_over(self) -> bool:
        """True once the client has said its last, and no owner is to answer what it said before."""
        raise NotImplementedError

    def _note_taken(self, size: int, generation: int) -> None:
        """The socket has taken an event of this generation's owner."""
        raise NotImplementedError

    async def _serve(self) -> None:
        while self.has_socket:
            if self._outgoing:
                await self._write(*self._outgoing.pop(0))
            elif self._failure is not None:
                raise self._failure
            elif self._is_over:
                self.has_socket = False
            elif (event := self._mailbox.get_layer_nowait()) is not None:
                await self._write_group(event)
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None

    def _wake(self) -> None:
        """Let the task look again what there is to do."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _write(self, event: Message, size: int, generation: int) -> None:
        assert self._send is not None, "only `run` writes"
        if not self._is_cut:
            try:
                await self._send(event)
            except OSError:
                # The client has gone: the server says so in its last event.
                self._is_cut = True
        if event["type"] == "websocket.accept":
            self._sink = find_sink(self.scope, self._send)
            self._host.attach(self, self._mailbox, self._sink)
        elif event["type"] == "http.response.body" and not event.get("more_body"):
            self.has_socket = False
        self._note_taken(size, generation)

    def _write_at_once(self, event: Message) -> bool:
        """Write a message without the task, if that waits, and the socket takes more."""
        waiter, sink = self._waiter, self._sink
        if sink is None or waiter is None or waiter.done() or self._outgoing:
            return False
        text, data, form = event.get("text"), event.get("bytes"), sink.form
        if form is None or (text is None) == (data is None):
            return False
        sink.write(PreparedMessage(text=text, data=data).frame(form))
        return True

    async def _write_group(self, event: Message) -> None:
        kind = event.get("type")
        if kind not in {"websocket.send", "websocket.close"} or self._is_closed or self._is_cut:
            self._host.counters["socket_messages_dropped"] += 1
            return
        assert self._send is not None
        if kind == "websocket.close":
            self._is_closed = True
        try:
            await self._send({key: value for key, value in event.items() if value is not None})
        except OSError:
            self._is_cut = True
        except ValueError:
            # A message that is none, from whoever may send to the group.
            self._host.counters["socket_messages_dropped"] += 1

    def _overflow(self) -> None:
        self._host.counters["socket_overflows"] += 1
        self.close(TRY_AGAIN_LATER)

    def _say(self, *events: Message) -> None:
        """Send events of the edge's own."""
        self._outgoing.extend((event, 0, 0) for event in events)
        self._wake()

    def close(self, code: int) -> None:
        """Close a WebSocket that is accepted."""
        if not self._is_closed:
            self._is_closed = True
            self._say({"type": "websocket.close", "code": code})

    def _fail(self, text: str) -> None:
        error = WorkerLost(text)
        mark_logged(error)
        self._failure = error
        self._wake()
