"""One connection at the edge: its socket, its present owner, and what is between them.

    server -> mailbox -> event to the owner, kept until it is acknowledged
    owner -> send -> outgoing -> server

    phase      what the owner is                     what the client's events do
    offered    none; the queue of offers knows it    wait here, within the bound
    owned      a worker                              go to it, and wait here until acknowledged
    ended      none; its application has ended       are dropped

While as many events wait as there may be, the server's mailbox is left alone, and by that the
socket: the client waits.  A client that has gone is told at once, whatever waits.

What is written to the socket is in `edge_socket`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from channels.decoupled.backlog import LAST_EVENTS, EventBacklog
from channels.decoupled.carried import DENIAL, carried_scope, refusal
from channels.decoupled.credit import Credit
from channels.decoupled.edge_host import EdgeHost
from channels.decoupled.edge_socket import EdgeSocket
from channels.decoupled.intake import fill
from channels.decoupled.messages import size_of
from channels.kit.doors import find_mailbox
from channels.kit.tasks import TaskScope
from channels.kit.types import Message, Receive, Scope, Send

#: RFC 6455 section 7.4.2's registry: "Service Restart".
SERVICE_RESTART: Final = 1012

#: How long the socket is kept for what the owner says to a client's events before its last.
LAST_WORDS_SECONDS: Final = 1.0

#: An owner that sends so many times its credit is no worker of ours; two may have used theirs.
CREDIT_BREACH: Final = 8


class EdgeConnection(EdgeSocket):
    """One WebSocket or request."""

    __slots__ = (
        "_credit",
        "_has_said_last",
        "_is_denying",
        "_is_last_due",
        "_timer",
        "backlog",
        "generation",
        "id",
        "is_accepted",
        "is_ended",
        "is_offered",
        "on_crash",
        "owner",
        "rolls",
        "socket",
        "state",
        "was_owned",
    )

    def __init__(self, number: int, scope: Scope, host: EdgeHost, socket: str) -> None:
        super().__init__(scope, host)
        self.id = number
        self.socket = socket
        self.generation = 1
        self.owner = ""
        self.is_offered = False
        self.was_owned = False
        #: True once a WebSocket is accepted, or a response begun.
        self.is_accepted = False
        #: True once its application has ended, or nobody will run one.
        self.is_ended = False
        self.state: bytes | None = None
        self.on_crash = "close"
        #: The owner's rolls that have not named it.
        self.rolls = 0
        self._has_said_last = self._is_last_due = False
        self._timer: asyncio.TimerHandle | None = None
        #: True while an answer that refuses the handshake is not complete.
        self._is_denying = False
        options = host.options
        #: What the client has said and no worker has acknowledged.
        self.backlog = EventBacklog(options.unacknowledged_events, options.unacknowledged_bytes)
        self._credit = Credit(options.unsent_events, options.unsent_bytes)

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

    @property
    def _is_over(self) -> bool:
        return self._has_said_last and (self.is_ended or not self.owner or self._is_last_due)

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

    # To the client, beside what `EdgeSocket` does.

    def _note_taken(self, size: int, generation: int) -> None:
        """The socket has taken an event; its sender is told of some together."""
        if generation == self.generation and self.owner:
            count = self._credit.taken(size)
            if count is not None:
                self._host.post(self, "taken", count=count)

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
