"""One connection at the edge: its socket, its present owner, and what is between them.

    server -> mailbox -> event to the owner, kept until it is acknowledged
    owner -> send -> outgoing -> server

    phase      what the owner is                     what the client's events do
    offered    none; the queue of offers knows it    wait here, within the bound
    owned      a worker                              go to it, and wait here until acknowledged
    ended      none; its application has ended       are dropped

While as many events wait as there may be, the server's mailbox is left alone, and by that the
socket: the client waits.  A client that has gone is told at once, whatever waits.

The task that the server runs for this connection does all waiting, for a socket that takes no more.
Everything else is done in the turn of the loop in which it comes, by methods that do not wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

from channels.decoupled.backlog import LAST_EVENTS, EventBacklog
from channels.decoupled.carried import DENIAL, carried_scope, refusal
from channels.decoupled.credit import Credit
from channels.decoupled.edge_host import EdgeHost
from channels.decoupled.intake import fill
from channels.decoupled.messages import size_of
from channels.exceptions import WorkerLost, mark_logged
from channels.fanout.prepared import PreparedMessage
from channels.kit.doors import Sink, find_mailbox, find_sink
from channels.kit.mailbox import Mailbox
from channels.kit.tasks import TaskScope
from channels.kit.types import Message, Receive, Scope, Send

#: RFC 6455 section 7.4.2's registry: "Service Restart", "Try Again Later".
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

#: How long the socket is kept for what the owner says to a client's events before its last.
LAST_WORDS_SECONDS: Final = 1.0

#: An owner that sends so many times its credit is no worker of ours; two may have used theirs.
CREDIT_BREACH: Final = 8


class EdgeConnection:
    """One WebSocket or request."""

    __slots__ = (
        "_credit",
        "_failure",
        "_has_said_last",
        "_host",
        "_is_closed",
        "_is_cut",
        "_is_denying",
        "_is_last_due",
        "_mailbox",
        "_outgoing",
        "_send",
        "_sink",
        "_timer",
        "_waiter",
        "backlog",
        "generation",
        "has_socket",
        "id",
        "is_accepted",
        "is_ended",
        "is_offered",
        "is_websocket",
        "on_crash",
        "owner",
        "rolls",
        "scope",
        "socket",
        "state",
        "was_owned",
    )

    def __init__(self, number: int, scope: Scope, host: EdgeHost, socket: str) -> None:
        self.id = number
        self.scope = scope
        self.is_websocket: bool = scope["type"] == "websocket"
        self.socket = socket
        self.generation = 1
        self.owner = ""
        self.is_offered = False
        self.was_owned = False
        #: True once a WebSocket is accepted, or a response begun.
        self.is_accepted = False
        #: True once its application has ended, or nobody will run one.
        self.is_ended = False
        #: True until the server has nothing more to do with it.
        self.has_socket = True
        self.state: bytes | None = None
        self.on_crash = "close"
        #: The owner's rolls that have not named it.
        self.rolls = 0
        self._host = host
        self._failure: Exception | None = None
        self._has_said_last = self._is_last_due = False
        self._timer: asyncio.TimerHandle | None = None
        #: True once the end of what is sent to the client is in `_outgoing`.
        self._is_closed = False
        #: True while an answer that refuses the handshake is not complete.
        self._is_denying = False
        #: True once the client takes nothing more.
        self._is_cut = False
        self._mailbox: Mailbox = Mailbox(host.bounds)
        self._send: Send | None = None
        #: Takes ready frames, from the time when the WebSocket is accepted.
        self._sink: Sink | None = None
        #: Events on their way to the client, and the generation of their sender.  Short, and empty
        #: nearly always: a deque would take 0.7 KiB more.
        self._outgoing: list[tuple[Message, int, int]] = []
        options = host.options
        #: What the client has said and no worker has acknowledged.
        self.backlog = EventBacklog(options.unacknowledged_events, options.unacknowledged_bytes)
        self._credit = Credit(options.unsent_events, options.unsent_bytes)
        self._waiter: asyncio.Future[None] | None = None

    # The socket's task.

    async def run(self, receive: Receive, send: Send) -> None:
        """Serve the socket until it is closed.

        Raises:
            WorkerLost: If the owner could not go on: the server answers 500, or closes with 1011.
        """
        tasks: TaskScope | None = None
        mailbox = find_mailbox(self.scope, receive)
        if mailbox is None:
            tasks = TaskScope("a connection at the edge")
            tasks.spawn(fill(self._mailbox, receive), name="client events")
        else:
            mailbox.bounds = self._host.bounds
            self._mailbox = mailbox
        self._mailbox.on_overflow = self._overflow
        self._send = send
        self.pump()
        self.offer()
        try:
            await self._serve()
        finally:
            self.has_socket = False
            self._mailbox.on_event = self._mailbox.on_overflow = None
            self._send = self._sink = None
            self._tell_gone()
            if self._timer is not None:
                self._timer.cancel()
            if tasks is not None:
                await tasks.close()

    async def _serve(self) -> None:
        while self.has_socket:
            if self._outgoing:
                await self._write(*self._outgoing.pop(0))
            elif self._failure is not None:
                raise self._failure
            elif self._has_said_last and (self.is_ended or not self.owner or self._is_last_due):
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

    # From the client.

    def _on_event(self) -> None:
        """Something came into the mailbox: the client's, or of the socket's own groups."""
        self.pump()
        if self._mailbox.layer_size:
            self._wake()

    def pump(self) -> None:
        """Hand on what the client has said, as far as there is room for it."""
        if not self.has_socket:
            return
        mailbox = self._mailbox
        # What the mailbox has room for now is put while an event is taken: it follows that one.
        mailbox.on_event = None
        while mailbox.client_size and not self._has_said_last:
            event = mailbox.peek_last()
            # The last one stays there, so that what the owner says to those before still arrives.
            if event is None and (mailbox.gone or self._has_room):
                event = mailbox.get_client_nowait()
            if event is None:
                break
            self._from_client(event)
        mailbox.on_event = self._on_event

    @property
    def _has_room(self) -> bool:
        """False while as many events wait as there may be."""
        return not self.backlog.is_full and self._host.has_room(self.owner)

    def _from_client(self, event: Message) -> None:
        if event["type"] in LAST_EVENTS:
            self._has_said_last = True
            self._timer = asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._last_due)
            self._wake()
        if self.is_ended:
            return
        size = self.backlog.put(event)
        if self.owner:
            self._host.post(self, "event", size, sequence=self.backlog.sequence, event=event)

    def _last_due(self) -> None:
        self._is_last_due = True
        self._wake()

    def _tell_gone(self) -> None:
        """Let the owner know that the socket has gone, unless the client's last event did."""
        if not self.is_ended and not self._has_said_last:
            kind = "websocket.disconnect" if self.is_websocket else "http.disconnect"
            event: Message = {"type": kind}
            if self.is_websocket:
                event |= {"code": 1006, "reason": ""}
            self._from_client(event)
        if self.is_offered and not self.was_owned:
            # Nobody has begun anything for it.
            self.is_ended = True
        if self.is_ended:
            self._host.forget(self)

    # To the client.

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

    def _note_taken(self, size: int, generation: int) -> None:
        """The socket has taken an event; its sender is told of some together."""
        if generation == self.generation and self.owner:
            count = self._credit.taken(size)
            if count is not None:
                self._host.post(self, "taken", count=count)

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

    def refuse(self) -> None:
        """No worker has it, or none can go on: 503, or 1012 where an answer has begun."""
        self.is_offered = False
        self._give_up()
        if self.is_accepted:
            self._break_off()
            return
        self._is_closed = True
        self._host.counters["refused"] += 1
        self._say(*refusal(self.scope, self._host.options.retry_after))

    def _break_off(self) -> None:
        if self.is_websocket:
            self.close(SERVICE_RESTART)
        else:
            self._fail("The worker has gone in the middle of its response.")

    def _fail(self, text: str) -> None:
        error = WorkerLost(text)
        mark_logged(error)
        self._failure = error
        self._wake()

    def _give_up(self) -> None:
        """Nobody will handle what the client says from here on."""
        self.is_ended = True
        self.backlog.clear()
        if not self.has_socket:
            self._host.forget(self)

    # The owner.

    def offer(self) -> None:
        """Let a worker take it."""
        self._host.disown(self)
        self.is_offered = True
        self._host.offer(self)

    def on_claim(self, peer: str) -> None:
        """A worker has it from here on: tell it all that it needs."""
        options = self._host.options
        self.is_offered, self.was_owned, self.owner = False, True, peer
        self._credit.restart()
        self.rolls = 0
        scope, size = carried_scope(self.scope)
        self._host.post(
            self,
            "open",
            size + len(self.state or b""),
            scope=scope,
            socket=self.socket,
            start=self.backlog.acknowledged,
            is_accepted=self.is_accepted and self.is_websocket,
            state=self.state,
            credit=options.unsent_events,
            credit_bytes=options.unsent_bytes,
        )
        for sequence, event, size in self.backlog:
            self._host.post(self, "event", size, sequence=sequence, event=event)
        self.pump()

    def on_send(self, event: Message) -> None:
        """The owner's application has sent an event."""
        kind = event["type"]
        if self._is_closed or self.is_ended:
            self._host.counters["sends_after_end"] += 1
            return
        if len(self._outgoing) >= CREDIT_BREACH * self._host.options.unsent_events:
            self._host.counters["credit_exceeded"] += 1
            self._give_up()
            self._fail("Its worker sends more than it may.")
            return
        if kind in {"websocket.accept", "http.response.start"}:
            self.is_accepted = True
        elif kind == "websocket.close":
            self._is_closed = True
        elif kind.startswith(DENIAL):
            self._is_denying = bool(kind.endswith("start") or event.get("more_body"))
            self._is_closed = not self._is_denying
        size = size_of(event)
        if kind == "websocket.send" and self._write_at_once(event):
            self._note_taken(size, self.generation)
            return
        self._outgoing.append((event, size, self.generation))
        self._wake()

    def on_ack(self, message: Message) -> None:
        """Events are handled."""
        if message.get("state") is not None:
            self.state = message["state"]
        if message.get("on_crash") is not None:
            self.on_crash = message["on_crash"]
        self.backlog.acknowledge(message["sequence"])
        self.pump()

    def on_release(self, message: Message) -> None:
        """The owner hands it over."""
        self.state = message.get("state")
        self.backlog.acknowledge(message["sequence"])
        self.generation += 1
        self._host.counters["handed_over"] += 1
        self.offer()

    def on_end(self, *, is_failed: bool) -> None:
        """The owner's application has ended."""
        self._host.disown(self)
        self._give_up()
        if self._is_closed or not self.has_socket:
            return
        if is_failed or not self.is_websocket or self._is_denying:
            self._fail("The application has failed in its worker.")
        else:
            # Before accept this refuses it.
            self._is_closed = True
            self._say({"type": "websocket.close"})

    def on_owner_lost(self) -> None:
        """The owner is dead, or does not know of it."""
        self.generation += 1
        if self._may_go_on:
            if self.on_crash == "drop":
                self._host.counters["events_dropped"] += self.backlog.drop()
            self._host.counters["taken_over"] += 1
            self.offer()
            return
        self._host.disown(self)
        self._host.counters["lost_with_worker"] += 1
        if self.is_accepted or not self.has_socket:
            self._give_up()
            self._break_off()
        else:
            self.refuse()

    @property
    def _may_go_on(self) -> bool:
        """True if another worker can take the place of one that has died."""
        if not self.is_websocket or self._is_closed:
            return False
        if not self.is_accepted:
            # Its handshake waits: connect() is called anew.
            return self.has_socket
        return self.state is not None and self.on_crash != "close"
