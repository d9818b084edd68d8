"""The worker of decoupled mode: claims connections from edges and runs the application for them.

    offers -> claim -> the edge's open -> WorkerConnection -> the application, as under a server

It takes offers only while it has a free place, so that the least loaded worker takes the next.

Stop order: nothing more is claimed; consumers that have given their state hand their connections
over; the others may end by themselves for `shutdown_timeout`; those that are left are closed with
1012, spread over `close_spread`, and have `close_timeout` to end; they are cancelled; the
application hears `lifespan.shutdown`; what was said last goes to the edges.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from contextvars import copy_context
from typing import Any, Final

from asgiref.compatibility import guarantee_single_callable

from channels.decoupled.carried import opened_scope
from channels.decoupled.messages import OVERHEAD_BYTES, ROLL_IDS, check_envelope
from channels.decoupled.options import ConnectionWorkerOptions
from channels.decoupled.transport import LinkTransport
from channels.decoupled.worker_connection import WorkerConnection
from channels.exceptions import ChannelLayerUnavailable, MalformedMessage
from channels.kit.tasks import TaskScope
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Application, Message
from channels.server.garbage import Garbage
from channels.server.lifespan import Lifespan
from channels.server.loops import call_on, layer_on_this_loop, run_until_stopped
from channels.server.notify import notify
from channels.server.options import ServerOptions
from channels.status import answering

logger: Final = logging.getLogger("django.channels.worker")

#: How long to wait before a layer that failed is asked again, at first and at most, in seconds.
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MOST_SECONDS: Final = 5.0
#: For cancelled consumers, and for what was said last.
CANCEL_SECONDS: Final = 2.0
LAST_SECONDS: Final = 2.0
STARTUP_SECONDS: Final = 60.0

_malformed: Final = Throttle(5.0)
#: An edge's inbox, and the id of one of its connections.
Key = tuple[str, int]


class ConnectionWorker:
    """Runs an application for connections whose sockets are at edges.

    Args:
        application: An ASGI application, as a server would run it.
        layer: A channel layer that the edges share.
    """

    def __init__(
        self, application: Any, layer: Any, options: ConnectionWorkerOptions | None = None
    ) -> None:
        self.application: Application = guarantee_single_callable(application)  # type: ignore[no-untyped-call]
        self.layer = layer
        self.options = options or ConnectionWorkerOptions()
        self.counters: Counter[str] = Counter()
        self._connections: dict[Key, WorkerConnection] = {}
        #: Claims that no edge has answered: key -> (generation, its timer).
        self._claims: dict[Key, tuple[int, asyncio.TimerHandle]] = {}
        self._applications = TaskScope("a worker's connections")
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport: LinkTransport | None = None
        self._state: dict[str, Any] | None = None
        self._is_stopping = False

    # Life.

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then stop in order.  Blocks; has a loop of its own.

        A second signal ends it at once.
        """
        # As the server's process does: connections are long-lived containers by the thousand.
        with Garbage(ServerOptions().collect_after_objects).owned():
            run_until_stopped(self, self._run_as_owner(), self.options.stop_seconds)

    async def _run_as_owner(self) -> None:
        async with layer_on_this_loop(self.layer):
            await self.handle()

    def request_stop(self) -> None:
        """Stop in order, then end `handle`; from any thread, at any time."""
        call_on(self._loop, self._stopping.set)

    def hurry(self) -> None:
        """Let a stop wait for nothing; from any thread."""
        call_on(self._loop, self._set_hurried)

    def _set_hurried(self) -> None:
        self._hurried.set()
        self._changed.set()

    async def handle(self) -> None:
        """Work until `request_stop`, then stop in order.

        Cancel safety: cancelled, it cancels its consumers and awaits their ends.

        Raises:
            StartupFailed: If the application says that it cannot start.
        """
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._applications = TaskScope("a worker's connections")
        lifespan = Lifespan(self.application)
        await lifespan.startup(copy_context(), STARTUP_SECONDS)
        self._state = lifespan.state
        transport = self._transport = LinkTransport(self.layer, "worker", self.options, self)
        tasks = TaskScope("a worker")
        try:
            await transport.start()
            work = [
                tasks.spawn(self._listen(), name="offers", on_done=_leave_error),
                tasks.spawn(self._call_rolls(), name="rolls", on_done=_leave_error),
                tasks.spawn(self._stopping.wait(), name="stop", on_done=_leave_error),
            ]
            notify("READY=1")
            logger.info("Ready: taking connections from %s.", self.options.offers)
            async with answering(self.layer, "worker", self.statistics, [self.options.offers]):
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                notify("STOPPING=1")
                await tasks.close()
                await self._stop()
        finally:
            await tasks.close()
            await self._cancel()
            await lifespan.shutdown(LAST_SECONDS)
            await lifespan.tasks.close()
            await transport.close(LAST_SECONDS)
            self.counters.update(transport.counters)
            self._transport = self._loop = None

    async def _stop(self) -> None:
        """Hand over, drain, close: as far as each connection lets."""
        options = self.options
        self._is_stopping = True
        logger.info(
            "Stopping: %d connections are handed over, or have %g s to end.",
            len(self._connections),
            options.shutdown_timeout,
        )
        for connection in list(self._connections.values()):
            connection.request_release()
        if await self._wait_until_empty(options.shutdown_timeout):
            return
        logger.warning("%d connections are closed with 1012.", len(self._connections))
        hurried = self._hurried.is_set()
        spread = 0.0 if hurried else options.close_spread
        await self._close_rest(spread)
        await self._wait_until_empty(0.0 if hurried else options.close_timeout)

    async def _close_rest(self, spread: float) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        rest = list(self._connections.values())
        for when, connection in zip(
            sorted(random.uniform(0.0, spread) for _ in rest), rest, strict=True
        ):
            wait = began + when - loop.time()
            if wait > 0 and not self._hurried.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurried.wait(), wait)
            if self._connections.get((connection.edge, connection.id)) is connection:
                connection.restart()

    async def _wait_until_empty(self, seconds: float) -> bool:
        """True once no connection is left or claimed; False after the time, or in a hurry."""
        try:
            async with asyncio.timeout(seconds):
                while (self._connections or self._claims) and not self._hurried.is_set():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return not self._connections

    async def _cancel(self) -> None:
        """End what still runs; a consumer that takes no cancellation must not keep the process."""
        if not self._connections and not self._hurried.is_set():
            # Those that were handed over have their last steps to do.
            await self._applications.join(CANCEL_SECONDS)
        for _, timer in self._claims.values():
            timer.cancel()
        self._claims.clear()
        try:
            await asyncio.wait_for(self._applications.close(), CANCEL_SECONDS)
        except TimeoutError:
            logger.error("%d consumers did not end when cancelled.", len(self._applications))
        self._connections.clear()

    def statistics(self) -> dict[str, int]:
        """Counters since the process began, and sizes now."""
        total = Counter(self.counters)
        if self._transport is not None:
            total.update(self._transport.statistics())
        total["connections"] = len(self._connections)
        total["claims_open"] = len(self._claims)
        total["edges"] = len(self._transport.peers) if self._transport is not None else 0
        return dict(total)

    # Offers and claims.

    async def _listen(self) -> None:
        """Claim what edges offer, while there is a free place."""
        while True:
            while len(self._connections) + len(self._claims) >= self.options.max_connections:
                self._changed.clear()
                await self._changed.wait()
            offer = await self._take()
            try:
                self._claim(check_envelope(offer))
            except MalformedMessage as error:
                self.counters["malformed"] += 1
                held_back = _malformed.admit("offer")
                if held_back is not None:
                    logger.warning("An offer is dropped: %s%s", error, and_more(held_back))

    async def _take(self) -> Any:
        layer, channel, wait = self.layer, self.options.offers, RETRY_FIRST_SECONDS
        is_leased = hasattr(layer, "delivery_of") and layer.delivery_of(channel) is not None
        while True:
            try:
                if not is_leased:
                    return await layer.receive(channel)
                message, lease = await layer.receive_leased(channel)
                with contextlib.suppress(ChannelLayerUnavailable):
                    await lease.ack()
                return message
            except (TypeError, NotImplementedError):
                raise
            except Exception:
                logger.exception("Cannot receive from %r; trying again.", channel)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_MOST_SECONDS)

    def _claim(self, offer: Message) -> None:
        if offer["type"] != "decoupled.offer":
            raise MalformedMessage(f"{offer['type']} is none: expected decoupled.offer.")
        key = (offer["edge"], offer["id"])
        known = self._connections.get(key)
        if key in self._claims or (known is not None and known.generation >= offer["generation"]):
            # It was offered twice.
            return
        message = {"kind": "claim", "id": offer["id"], "generation": offer["generation"]}
        assert self._transport is not None
        self._transport.meet(offer)
        if self._transport.post(offer["edge"], message):
            self.counters["claims"] += 1
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self.options.claim_timeout, self._end_claim, key)
            self._claims[key] = (offer["generation"], timer)

    def _end_claim(self, key: Key) -> int:
        """The generation that was claimed; 0 if none was."""
        generation, timer = self._claims.pop(key, (0, None))
        if timer is not None:
            timer.cancel()
        self._changed.set()
        return generation

    # To edges.

    def post(self, connection: WorkerConnection, kind: str, size: int = 0, **fields: Any) -> None:
        """Send a message on this connection to its edge."""
        if self._transport is not None:
            fields["kind"], fields["id"] = kind, connection.id
            fields["generation"] = connection.generation
            self._transport.tell(connection.edge, fields, size + OVERHEAD_BYTES)

    def has_room(self, edge: str) -> bool:
        """False while too much waits for this edge."""
        return self._transport is None or self._transport.has_room(edge)

    async def _call_rolls(self) -> None:
        """Tell each edge which of its connections are here, so that it finds what is amiss."""
        while True:
            await asyncio.sleep(self.options.roll_interval)
            assert self._transport is not None
            for edge in self._transport.peers:
                here = [
                    [each.id, each.generation]
                    for each in self._connections.values()
                    if each.edge == edge and not each.is_lost
                ]
                for at in range(0, len(here) or 1, ROLL_IDS):
                    part = here[at : at + ROLL_IDS]
                    is_last = at + ROLL_IDS >= len(here)
                    roll = {"kind": "roll", "connections": part, "is_last": is_last}
                    self._transport.post(edge, roll, OVERHEAD_BYTES + 12 * len(part))

    # From edges.

    def on_message(self, peer: str, message: Message) -> None:
        """An edge has said something."""
        kind, key = message["kind"], (peer, message["id"])
        if kind == "open":
            self._open(key, message)
            return
        connection = self._connections.get(key)
        if kind == "void" and self._claims.get(key, (0,))[0] == message["generation"]:
            self.counters["claims_void"] += 1
            self._end_claim(key)
        elif connection is None or connection.generation != message["generation"]:
            self.counters["fenced"] += 1
        elif kind == "event":
            connection.on_event(message["event"])
        elif kind == "taken":
            connection.on_taken(message["count"])
        else:
            self.counters["orphans"] += 1
            connection.lose()

    def _open(self, key: Key, message: Message) -> None:
        self._end_claim(key)
        former = self._connections.get(key)
        if former is not None:
            former.lose()
        scope = opened_scope(message, self._state)
        connection = WorkerConnection(key[0], message, scope, self)
        self._connections[key] = connection
        self.counters["opened"] += 1
        if self._is_stopping:
            # It was claimed before: another worker shall have it.
            self.counters["passed_on"] += 1
            state = message.get("state")
            self.post(connection, "release", sequence=message["start"], state=state)
            connection.is_released = True
            self.ended(connection)
            return
        connection.start(self.application, self._applications)

    def ended(self, connection: WorkerConnection) -> None:
        """Its application has ended, or it is another worker's."""
        key = (connection.edge, connection.id)
        if self._connections.get(key) is connection:
            del self._connections[key]
        self._changed.set()

    def on_room(self, peer: str) -> None:
        """More may be said to an edge."""
        for connection in self._connections.values():
            if connection.edge == peer:
                connection.wake()

    def on_dead(self, peer: str) -> None:
        """An edge has died, or was silent for too long, and its sockets with it."""
        for key in [key for key in self._claims if key[0] == peer]:
            self._end_claim(key)
        for connection in list(self._connections.values()):
            if connection.edge == peer:
                self.counters["lost_with_edge"] += 1
                connection.lose()


def _leave_error(task: asyncio.Task[Any]) -> None:
    """`handle` looks at the results itself; this keeps the scope from logging them too."""
    if not task.cancelled():
        task.exception()
