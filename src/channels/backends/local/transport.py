"""The local layer's transport: finds the hub, or becomes it.

At first, and whenever the connection ends, it dials; if nobody listens it tries the lock, and who
gets it starts a hub of its own and dials that.  The others try again after 2 ms, later and later up
to 250 ms.  It tells the new hub all that it has joined and what it reads, then the
node sends again what was not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from channels.backends.local.connection import HubConnection
from channels.backends.local.exit import is_exiting, watch_exit
from channels.backends.local.options import HubOptions
from channels.backends.local.place import Lock, Place, dial
from channels.backends.local.protocol import MARGIN, VERSION, HubProtocolError, milliseconds
from channels.backends.local.server import HubServer
from channels.backends.shell import Backoff
from channels.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    NodeGone,
    TransportDown,
)
from channels.layers.contract import Backlog, Capabilities, Leased, Taker, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: For the hub's welcome, which waits for other processes for 0.3 s at most.
WELCOME_SECONDS: Final = 3.0
#: Without a hub for so long, the node is told.
PATIENCE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 0.9


class HubTransport:
    """One node's end, and the hub itself where this process is the first.

    Args:
        max_message_bytes: The layer's; what is said to the hub is bounded by it.
    """

    capabilities: Final = Capabilities(delays=True, queue_members=True)
    clock_offset: Final = 0.0

    def __init__(self, place: Place, options: HubOptions, max_message_bytes: int) -> None:
        self.place = place
        self.options = options
        self.hub: HubServer | None = None
        self._longest = max_message_bytes + MARGIN
        self._events: TransportEvents
        self._node = ""
        self._process = 0
        self._presence: Lock | None = None
        self._counters: Counter[str] = Counter()
        self._become_new()

    def _become_new(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        #: Sends a request; raises TransportDown where there is no hub.
        self._request: Callable[..., asyncio.Future[Any]] = _refuse
        self._connection: HubConnection | None = None
        self._timer: asyncio.Handle | None = None
        self._backoff = Backoff(first=0.002, longest=0.25)
        #: Since when there is no hub, until the node is told.
        self._missing_since: float | None = None
        #: The last hub's, and whether it had told all to this process.
        self._epoch = b""
        self._had_farewell = False
        self._groups: dict[str, None] = {}
        #: Queue -> (how many are wanted, milliseconds of a lease, who takes them).
        self._demands: dict[str, tuple[int, int, Taker]] = {}

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self.place.prepare()
        self._node, self._events = node, events
        self._process = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._claim()
        watch_exit(self)
        self._missing_since = self._loop.time()
        self._timer = self._loop.call_soon(self._seek)

    def _claim(self) -> None:
        """Be seen by a new hub.  A hub that looks just now may hold the file for a moment."""
        for _ in range(100):
            try:
                self._presence = Lock.take(self.place.node(self._node))
            except OSError as error:
                logger.warning("A new hub will not wait for this process: %s", error)
                return
            if self._presence is not None:
                return

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.close()
        self._leave_place()
        hub, self.hub = self.hub, None
        self._become_new()
        if hub is not None and hub.ended is not None:
            hub.request_stop()
            ended, _ = await asyncio.wait([asyncio.wrap_future(hub.ended)], timeout=_STOP_SECONDS)
            if not ended:
                logger.warning("The hub of this process does not end in time")

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
        # The hub, if it is here, has its own thread and goes on for the others.
        if os.getpid() != self._process and self.hub is not None:
            # Its thread was not copied; its sockets and locks were, and are the parent's.
            self.hub.abandon()
            self.hub = None
        self._leave_place()
        self._become_new()

    def close_at_exit(self) -> None:
        if os.getpid() != self._process:
            return
        if self.hub is not None:
            self.hub.stop()
        if self._connection is not None:
            self._connection.abandon()
        self._leave_place()

    def _leave_place(self) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            if os.getpid() == self._process:
                presence.path.unlink(missing_ok=True)
            presence.release()

    # Finding the hub.

    def _seek(self) -> None:
        self._timer = None
        if is_exiting():
            return
        try:
            try:
                self._connect()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self._try_to_host(error)
        except BlockingIOError:
            self._seek_later(ConnectionError(f"{self._hub_name()} lets too many wait"))
        except (OSError, InvalidChannelLayerError, RuntimeError) as error:
            self._seek_later(error)

    def _seek_later(self, error: BaseException) -> None:
        since, now = self._missing_since, self._loop.time()
        if since is not None and now - since > PATIENCE_SECONDS:
            self._missing_since = None
            self._events.on_down(error)
        self._timer = self._loop.call_later(self._backoff.take(), self._seek)

    def _hub_name(self) -> str:
        pid = self.place.hub_pid()
        return "the hub" if pid is None else f"the hub, process {pid},"

    def _try_to_host(self, error: OSError) -> None:
        # Whoever removed the directory, it is needed again.
        self.place.prepare()
        lock = Lock.take(self.place.lock)
        if lock is None:
            # Another is the hub already, or about to be, or was and is not quite dead.
            raise ConnectionError(f"{self._hub_name()} does not listen: {error}")
        hub = HubServer(self.place, lock, self.options, self._longest, self._events.capacity_of)
        try:
            hub.start()
        except BaseException:
            hub.abandon()
            raise
        self.hub = hub
        self._counters["hosted"] += 1
        self._backoff.reset()
        self._seek_later(error)

    def _connect(self) -> None:
        handlers: dict[str, Callable[..., None]] = {
            "envelope": self._events.on_frame,
            "over_capacity": self._events.on_over_capacity,
            "leased": self._on_leased,
            "gap": self._on_gap,
            "welcome": self._on_welcome,
            "turned_away": _on_turned_away,
        }
        connection = HubConnection(
            dial(self.place), handlers, self._on_lost, self._longest, self.options.peer_buffer
        )
        connection.hub_pid = self.place.hub_pid() or 0
        if self._presence is None or not self._presence.is_current():
            self._claim()
        self._connection = connection
        self._timer = self._loop.call_later(WELCOME_SECONDS, self._not_welcomed, connection)
        connection.send("hello", VERSION, self._node, self._epoch, self._had_farewell, os.getpid())
        for group in self._groups:
            connection.request("join", group)
        for queue, (count, lease, _) in self._demands.items():
            connection.send("demand", queue, count, lease)
        connection.send("ready")

    def _not_welcomed(self, connection: HubConnection) -> None:
        connection.close()
        self._connection = None
        self._seek_later(ConnectionError(f"{self._hub_name()} does not answer"))

    def _on_welcome(self, pid: int, epoch: bytes, kept: bool, longest: int) -> None:
        connection = self._connection
        assert connection is not None, "it speaks"
        connection.hub_pid, connection.longest, connection.is_up = pid, longest, True
        self._request = connection.request
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._backoff.reset()
        was_up, self._epoch, self._had_farewell = bool(self._epoch), epoch, False
        self._missing_since = None
        # It has been told all groups already: for the node, nothing is to be joined again.
        self._events.on_up(True)
        if was_up and not kept:
            self._events.on_gap(None)

    def _on_lost(self, error: BaseException) -> None:
        assert self._connection is not None, "there was one"
        connection, self._connection = self._connection, None
        self._request = _refuse
        if self._timer is not None:
            self._timer.cancel()
        if is_exiting():
            # This process's own hub has handed over; nobody is left here who would want to know.
            return
        if not connection.is_up:
            self._seek_later(error)
            return
        self._had_farewell = connection.was_bid_farewell
        if self._had_farewell:
            # No incident, unless the next one is not there in time.
            self._counters["handed_over"] += 1
            self._missing_since = self._loop.time()
            self._events.on_down(None)
        else:
            self._counters["lost"] += 1
            self._events.on_down(error)
        self._seek()

    def _on_gap(self) -> None:
        self._counters["gaps"] += 1
        self._events.on_gap(None)

    # The operations.

    async def flush(self) -> None:
        await self._request("flush")

    async def join(self, groups: Sequence[str]) -> None:
        await asyncio.gather(*[self._request("join", group) for group in groups])
        self._groups.update(dict.fromkeys(groups))

    async def leave(self, groups: Sequence[str]) -> None:
        answers = [self._request("leave", group) for group in groups]
        for group in groups:
            self._groups.pop(group, None)
        await asyncio.gather(*answers)

    def publish(self, group: str, envelope: Envelope) -> asyncio.Future[None]:
        return self._request("publish", group, envelope.encoded)

    def push_node(self, node: str, envelope: Envelope) -> asyncio.Future[None]:
        return self._request("push_node", node, envelope.encoded)

    def push(self, queue: str, envelope: Envelope, capacity: int) -> asyncio.Future[None]:
        return self._request("push", queue, envelope.encoded, capacity)

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        await self._request("add_queue", group, queue, milliseconds(expires))

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._request("discard_queue", group, queue)

    def statistics(self) -> Mapping[str, int]:
        hub = self.hub
        counts = dict(self._counters)
        if hub is not None and hub.is_alive:
            counts.update(hub.statistics())
        return counts

    # Delays and leases.

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        await self._request("push_later", queue, envelope.encoded, milliseconds(due), bound)

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        known = self._demands.pop(queue, None)
        if count > 0:
            self._demands[queue] = (count, milliseconds(seconds), taker)
        elif known is None:
            return
        if self._connection is not None:
            # Even before the welcome: what the greeting said is out of date then.
            self._connection.send("demand", queue, count, milliseconds(seconds))

    def _on_leased(self, queue: str, token: bytes, attempts: int, data: bytes) -> None:
        found = self._demands.pop(queue, None)
        if found is None:
            # Nobody wants it any more.  If the hub cannot be told, the lease runs out.
            with contextlib.suppress(ChannelLayerUnavailable):
                self._request("release", token, 0, False)
            return
        count, lease, taker = found
        if count > 1:
            self._demands[queue] = (count - 1, lease, taker)
        taker(Leased(queue, data, token, attempts))

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await self._on_lease("acknowledge", token)

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        return await self._on_lease("release", token, milliseconds(delay), counted)

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await self._on_lease("extend", token, milliseconds(seconds))

    async def backlog(self, queue: str) -> Backlog:
        found: Backlog = await self._request("backlog", queue)
        return found

    async def _on_lease(self, *message: Any) -> bool:
        try:
            await self._request(*message)
        except NodeGone:
            return False
        return True


def _on_turned_away(reason: str) -> None:
    raise HubProtocolError(f"the hub turns this process away: {reason}")


def _refuse(*_: Any) -> NoReturn:
    raise TransportDown("There is no hub at this moment.")
