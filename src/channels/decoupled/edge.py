"""The edge: the ASGI application of a server that holds sockets and runs no user code.

    server -> Edge -> EdgeConnection -> offers -> a worker claims it -> events, sends, ...

It owns three tables, each bounded by the number of connections: all connections by their id, those
of each worker, and those whose socket has gone while their worker has not said that it is done.

Close order, at `lifespan.shutdown`, when the server has closed the sockets: no more offers; what
was said last goes out; every worker is told that the edge has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import copy_context
from typing import Any, Final, cast

from channels.decoupled.edge_connection import EdgeConnection
from channels.decoupled.messages import OVERHEAD_BYTES
from channels.decoupled.offers import Offers
from channels.decoupled.options import EdgeOptions
from channels.decoupled.transport import LinkTransport
from channels.exceptions import InvalidOption
from channels.fanout.delivery import Member
from channels.kit.mailbox import Mailbox, MailboxBounds, Overflow
from channels.kit.types import Application, Message, Receive, Scope, Send
from channels.server.lifespan import Lifespan
from channels.server.loops import layer_on_this_loop
from channels.status import answering

#: For what was said last, when the edge stops.
LAST_SECONDS: Final = 2.0
#: For the start of the application that answers HTTP here.
STARTUP_SECONDS: Final = 60.0
#: Connections whose socket has gone and whose worker has not said that it is done.
MOST_DEPARTED: Final = 10_000
#: Whole rolls of a worker that may miss a connection; it may just have been opened.
MISSED_ROLLS: Final = 2


class Edge:
    """Hands each connection to a worker, and keeps it when the worker goes.

    Args:
        layer: A channel layer that the workers share.
        application: Answers HTTP in this process, with the option http="edge".

    Raises:
        InvalidOption: If `http` is "edge" and there is no application.
    """

    def __init__(
        self,
        layer: Any,
        options: EdgeOptions | None = None,
        application: Application | None = None,
    ) -> None:
        self.options = options or EdgeOptions()
        if self.options.http == "edge" and application is None:
            raise InvalidOption("http='edge' needs an application that answers HTTP here.")
        self._layer = layer
        self._application = application
        #: Of the application's lifespan.
        self._state: dict[str, Any] | None = None
        self.counters: Counter[str] = Counter()
        overflow = cast(Overflow, self.options.group_overflow)
        self.bounds = MailboxBounds(self.options.group_capacity, self.options.group_bytes, overflow)
        self._transport: LinkTransport | None = None
        self._offers: Offers | None = None
        self._last_id = 0
        self._connections: dict[int, EdgeConnection] = {}
        #: Worker -> ids of its connections.
        self._owned: dict[str, set[int]] = {}
        #: Ids, the oldest first.
        self._departed: dict[int, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the server's start and stop.

        Raises:
            ValueError: For a type of scope that no edge serves.
        """
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
        elif kind == "http" and self.options.http == "edge":
            assert self._application is not None, "checked when the edge was made"
            if self._state is not None:
                scope["state"] = dict(self._state)
            await self._application(scope, receive, send)
        elif kind in {"http", "websocket"}:
            await self._serve(scope, receive, send)
        else:
            raise ValueError(f"An edge serves HTTP and WebSocket: found a scope of type {kind!r}.")

    # Life.

    async def start(self) -> None:
        """Take an inbox; done by lifespan, or with the first connection."""
        if self._transport is not None:
            return
        self._transport = LinkTransport(self._layer, "edge", self.options, self)
        self._offers = Offers(self._transport.offer, self.options.offer_again, self.counters)
        await self._transport.start()

    async def stop(self) -> None:
        """Tell the workers that this edge has gone."""
        transport, offers = self._transport, self._offers
        if transport is None or offers is None:
            return
        await offers.close()
        await transport.close(LAST_SECONDS)
        self.counters.update(transport.counters)
        self._transport = self._offers = None
        self._connections.clear()
        self._owned.clear()
        self._departed.clear()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with layer_on_this_loop(self._layer), self._application_alive():
            await self.start()
            try:
                async with answering(self._layer, "edge", self.statistics, [self.options.offers]):
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
            finally:
                await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def _application_alive(self) -> AsyncIterator[None]:
        """Start the application that answers HTTP here, if there is one, and stop it at the end."""
        if self._application is None:
            yield
            return
        lifespan = Lifespan(self._application)
        await lifespan.startup(copy_context(), STARTUP_SECONDS)
        self._state = lifespan.state
        try:
            yield
        finally:
            await lifespan.shutdown(LAST_SECONDS)
            await lifespan.tasks.close()

    def statistics(self) -> dict[str, int]:
        """Counters since the process began, and sizes now."""
        total = Counter(self.counters)
        if self._transport is not None:
            total.update(self._transport.statistics())
        total["connections"] = len(self._connections)
        total["departed"] = len(self._departed)
        total["workers"] = len(self._transport.peers) if self._transport is not None else 0
        total["offered"] = len(self._offers) if self._offers is not None else 0
        # A copy: metrics are read on other threads.
        connections = list(self._connections.values())
        total["unacknowledged"] = sum(len(each.backlog) for each in connections)
        return dict(total)

    # Connections.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.start()
        socket = ""
        if scope["type"] == "websocket" and hasattr(self._layer, "attach"):
            socket = await self._layer.new_channel("socket")
        self._last_id += 1
        connection = EdgeConnection(self._last_id, scope, self, socket)
        self._connections[connection.id] = connection
        self.counters["opened"] += 1
        try:
            await connection.run(receive, send)
        finally:
            if socket:
                self._layer.detach(socket)
            if connection.id in self._connections:
                self._depart(connection)

    def _depart(self, connection: EdgeConnection) -> None:
        """Its socket has gone; its worker has still to say that it is done."""
        self._departed[connection.id] = None
        if len(self._departed) > MOST_DEPARTED:
            oldest = self._connections[next(iter(self._departed))]
            self.counters["departed_forgotten"] += 1
            self.post(oldest, "void")
            self.forget(oldest)

    def forget(self, connection: EdgeConnection) -> None:
        """Nothing is left to be done for it."""
        self.disown(connection)
        self._connections.pop(connection.id, None)
        self._departed.pop(connection.id, None)
        if self._offers is not None:
            self._offers.withdraw(connection)

    def disown(self, connection: EdgeConnection) -> None:
        """No worker has it any more."""
        if connection.owner in self._owned:
            self._owned[connection.owner].discard(connection.id)
        connection.owner = ""

    def offer(self, connection: EdgeConnection) -> None:
        """Let a worker take the connection, within the time that there is for it."""
        if self._offers is None:
            return
        options = self.options
        seconds = options.claim_timeout if connection.is_websocket else options.http_claim_timeout
        if connection.is_accepted:
            seconds = options.resume_timeout
        self._offers.put(connection, seconds)

    def attach(self, connection: EdgeConnection, mailbox: Mailbox, sink: Any) -> None:
        """Deliver what is sent to the socket's channel, and to the groups that it is in."""
        if connection.socket:
            self._layer.attach(connection.socket, Member(mailbox, asyncio.get_running_loop(), sink))

    # To workers.

    def post(self, connection: EdgeConnection, kind: str, size: int = 0, **fields: Any) -> None:
        """Send a message on this connection to its owner."""
        if connection.owner and self._transport is not None:
            fields["kind"], fields["id"] = kind, connection.id
            fields["generation"] = connection.generation
            self._transport.tell(connection.owner, fields, size + OVERHEAD_BYTES)

    def _post_void(self, peer: str, number: int, generation: int) -> None:
        """Tell a worker that it has no such connection."""
        if self._transport is not None:
            message = {"kind": "void", "id": number, "generation": generation}
            self._transport.tell(peer, message, OVERHEAD_BYTES)

    def has_room(self, owner: str) -> bool:
        """False while too much waits for this worker."""
        return self._transport is None or self._transport.has_room(owner)

    # From workers.

    def on_message(self, peer: str, message: Message) -> None:
        """A worker has said something."""
        kind = message["kind"]
        if kind == "roll":
            self._on_roll(peer, message)
            return
        number, generation = message["id"], message["generation"]
        connection = self._connections.get(number)
        if kind == "claim":
            self._on_claim(peer, number, generation, connection)
        elif connection is None or connection.owner != peer or connection.generation != generation:
            # Of a former owner, or on a connection that has gone meanwhile.
            self.counters["fenced"] += 1
        elif kind == "send":
            connection.on_send(message["event"])
        elif kind == "ack":
            connection.on_ack(message)
        elif kind == "release":
            connection.on_release(message)
        else:
            connection.on_end(is_failed=message["is_failed"])

    def _on_claim(
        self, peer: str, number: int, generation: int, connection: EdgeConnection | None
    ) -> None:
        """The first claim of a generation wins."""
        if (
            connection is None
            or not connection.is_offered
            or connection.generation != generation
            or self._offers is None
        ):
            self.counters["claims_void"] += 1
            self._post_void(peer, number, generation)
            return
        self.counters["claims"] += 1
        self._offers.withdraw(connection)
        self._owned.setdefault(peer, set()).add(number)
        connection.on_claim(peer)

    def _on_roll(self, peer: str, message: Message) -> None:
        """Compare a worker's connections with those that it has here."""
        owned = self._owned.setdefault(peer, set())
        for number, generation in message["connections"]:
            connection = self._connections.get(number)
            if number in owned and connection is not None and connection.generation == generation:
                connection.rolls = 0
            else:
                self.counters["orphans"] += 1
                self._post_void(peer, number, generation)
        if not message["is_last"]:
            return
        for number in list(owned):
            connection = self._connections[number]
            connection.rolls += 1
            if connection.rolls > MISSED_ROLLS:
                self.counters["missing_at_worker"] += 1
                owned.discard(number)
                connection.on_owner_lost()

    def on_room(self, peer: str) -> None:
        """More may be said to a worker."""
        for number in self._owned.get(peer, ()):
            self._connections[number].pump()

    def on_dead(self, peer: str) -> None:
        """A worker has died, or was silent for too long: its connections need another."""
        for number in self._owned.pop(peer, set()):
            connection = self._connections.get(number)
            if connection is not None:
                connection.on_owner_lost()
