"""The local layer's transport: finds the hub, or becomes it.

At first, and whenever the connection ends, it dials; if nobody listens it tries the lock, and who
gets it starts a hub of its own and dials that.  The others try again after 2 ms, later and later up
to 250 ms.  It tells the new hub all that it has joined and what it reads, then the
node sends again what was not answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from channels.backends.local import frames
from channels.backends.local.connection import HubConnection
from channels.backends.local.exit import is_exiting, watch_exit
from channels.backends.local.frames import frame, pack_many
from channels.backends.local.leasing import LeasingEnd
from channels.backends.local.options import HubOptions
from channels.backends.local.place import Lock, Place, dial
from channels.backends.local.server import HubServer
from channels.backends.shell import Backoff
from channels.exceptions import MessageTooLarge, TransportDown
from channels.layers.contract import Capabilities, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: For the hub's welcome, which waits for other processes for 0.3 s at most.
WELCOME_SECONDS: Final = 3.0
#: Without a hub for so long, the node is told.
PATIENCE_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 0.9
#: Names in one JOIN.
_BATCH: Final = 500


class HubTransport(LeasingEnd):
    """One node's end, and the hub itself where this process is the first.

    Args:
        max_message_bytes: The layer's; frames are bounded by it.
    """

    capabilities: Final = Capabilities(delays=True, queue_members=True)
    clock_offset: Final = 0.0

    def __init__(self, place: Place, options: HubOptions, max_message_bytes: int) -> None:
        self.place = place
        self.options = options
        self.hub: HubServer | None = None
        self._longest = max_message_bytes + frames.MARGIN
        self._events: TransportEvents
        self._node = b""
        self._process = 0
        self._presence: Lock | None = None
        self._counters: Counter[str] = Counter()
        self._become_new()

    def _become_new(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: HubConnection | None = None
        self._timer: asyncio.Handle | None = None
        self._backoff = Backoff(first=0.002, longest=0.25)
        self._down_since: float | None = None
        self._is_told_down = True
        self._last_epoch = bytes(8)
        self._had_farewell = False
        self._was_up = False
        self._groups: dict[str, None] = {}
        self._leasing = {}

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self.place.prepare()
        self._node, self._events = node.encode(), events
        self._process = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._claim(node)
        watch_exit(self)
        self._down_since = self._loop.time()
        self._timer = self._loop.call_soon(self._seek)

    def _claim(self, node: str) -> None:
        """Be seen by a new hub.  A hub that looks just now may hold the file for a moment."""
        for _ in range(100):
            try:
                self._presence = Lock.take(self.place.node(node))
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
        loop = asyncio.get_running_loop()
        self._become_new()
        if hub is not None and hub.is_alive:
            stopped = asyncio.Event()
            hub.request_stop(partial(_call_soon, loop, stopped.set))
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await stopped.wait()
            except TimeoutError:
                logger.warning("The hub of this process does not end in time")

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
        if os.getpid() != self._process:
            if self.hub is not None:
                # Its thread was not copied; its sockets and its lock were, and are the parent's.
                self.hub.abandon()
                self.hub = None
            if self._presence is not None:
                self._presence.release()
                self._presence = None
        else:
            # The hub, if it is here, has its own thread and goes on for the others.
            self._leave_place()
        self._become_new()

    def close_at_exit(self) -> None:
        """The interpreter ends."""
        if self._connection is not None:
            self._connection.abandon()
        self._leave_place()

    def _leave_place(self) -> None:
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.path.unlink(missing_ok=True)
            presence.release()

    # Finding the hub.

    def _seek(self) -> None:
        assert self._loop is not None, "only called on it"
        self._timer = None
        if is_exiting():
            return
        try:
            self._connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._try_to_host(error)
        except BlockingIOError:
            self._seek_later(ConnectionError(f"{self._hub_name()} lets too many wait"))
        except OSError as error:
            self._seek_later(error)

    def _seek_later(self, error: BaseException) -> None:
        assert self._loop is not None, "only called on it"
        self._tell_down(error, self._loop.time())
        self._timer = self._loop.call_later(self._backoff.take(), self._seek)

    def _tell_down(self, error: BaseException, now: float) -> None:
        if self._is_told_down and not (
            self._down_since is not None and now - self._down_since > PATIENCE_SECONDS
        ):
            return
        self._is_told_down, self._down_since = True, None
        self._events.on_down(error)

    def _hub_name(self) -> str:
        pid = self.place.hub_pid()
        return "the hub" if pid is None else f"the hub, process {pid},"

    def _try_to_host(self, error: BaseException) -> None:
        try:
            # Whoever removed the directory, it is needed again.
            self.place.prepare()
            lock = Lock.take(self.place.lock)
        except (OSError, ValueError) as refused:
            self._seek_later(refused)
            return
        if lock is None:
            # Another is the hub already, or about to be, or was and is not quite dead.
            self._seek_later(ConnectionError(f"{self._hub_name()} does not listen: {error}"))
            return
        hub = HubServer(self.place, lock, self.options, self._longest, self._events.capacity_of)
        try:
            hub.start()
        except (OSError, RuntimeError) as refused:
            hub.abandon()
            self._seek_later(refused)
            return
        self.hub = hub
        self._counters["hosted"] += 1
        self._backoff.reset()
        self._seek_later(error)

    def _connect(self) -> None:
        assert self._loop is not None, "only called on it"
        connection = HubConnection(
            dial(self.place),
            self._events.on_frame,
            self._on_frame,
            self._on_lost,
            longest=self._longest,
            buffer_octets=self.options.peer_buffer,
        )
        connection.hub_pid = self.place.hub_pid() or 0
        if self._presence is None or not self._presence.is_current():
            self._claim(self._node.decode())
        self._connection = connection
        self._timer = self._loop.call_later(WELCOME_SECONDS, self._not_welcomed, connection)
        farewell = self._last_epoch != bytes(8) and self._had_farewell
        hello = frames.HELLO_BODY.pack(
            frames.VERSION, self._last_epoch, farewell, os.getpid() & 0xFFFFFFFF
        )
        connection.write(frame(frames.HELLO, self._node, hello))
        groups = list(self._groups)
        for at in range(0, len(groups), _BATCH):
            names = [group.encode() for group in groups[at : at + _BATCH]]
            _ignore(connection.request(frame(frames.JOIN, b"", pack_many(names))))
        for demand in self._demands():
            connection.write(demand)
        connection.write(frame(frames.READY))

    def _not_welcomed(self, connection: HubConnection) -> None:
        connection.close()
        self._connection = None
        self._seek_later(ConnectionError(f"{self._hub_name()} does not answer"))

    def _on_lost(self, error: BaseException) -> None:
        assert self._connection is not None, "there was one"
        connection, self._connection = self._connection, None
        if self._timer is not None:
            self._timer.cancel()
        if is_exiting():
            # This process's own hub has handed over; nobody is left here who would want to know.
            return
        if self._is_told_down:
            self._seek_later(error)
            return
        self._had_farewell = connection.was_bid_farewell
        self._is_told_down = True
        if self._had_farewell and self._loop is not None:
            # No incident, unless the next one is not there in time.
            self._counters["handed_over"] += 1
            self._down_since = self._loop.time()
            self._events.on_down(None)
        else:
            self._counters["lost"] += 1
            self._down_since = None
            self._events.on_down(error)
        self._seek()

    # What comes.

    def _on_frame(self, kind: int, data: bytes, start: int, name_end: int, end: int) -> None:
        if kind == frames.LEASED:
            self._on_leased(data[start:name_end].decode(), data[name_end:end])
        elif kind == frames.WELCOME:
            self._on_welcome(data[name_end:end])
        elif kind == frames.OVER_CAPACITY:
            full, members = frames.TALLY.unpack_from(data, name_end)
            self._events.on_over_capacity(data[start:name_end].decode(), full, members)
        elif kind == frames.GAP:
            self._counters["gaps"] += 1
            self._events.on_gap(None)
        elif kind == frames.TURNED_AWAY:
            raise frames.FrameError(
                f"the hub turns this process away: {str(data[name_end:end], 'utf-8', 'replace')}"
            )
        else:
            raise frames.FrameError(f"kind {kind} is none that a hub sends")

    def _on_welcome(self, body: bytes) -> None:
        connection = self._connection
        assert connection is not None, "it speaks"
        pid, epoch, kept, longest = frames.WELCOME_BODY.unpack(body)
        connection.hub_pid, connection.longest, connection.is_up = pid, longest, True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._backoff.reset()
        self._last_epoch, self._had_farewell = epoch, False
        self._is_told_down, self._down_since = False, None
        was_up, self._was_up = self._was_up, True
        # It has been told all groups already: for the node, nothing is to be joined again.
        self._events.on_up(True)
        if was_up and not kept:
            self._events.on_gap(None)

    # The operations.

    def _request(self, data: bytes) -> asyncio.Future[None]:
        connection = self._connection
        if connection is None or not connection.is_up:
            raise TransportDown("There is no hub at this moment.")
        if len(data) > connection.longest:
            raise MessageTooLarge(
                f"A message of {len(data)} octets is over the {connection.longest} that the hub, "
                f"process {connection.hub_pid}, takes: give all processes one max_message_bytes."
            )
        return connection.request(data)

    def _send(self, data: bytes) -> None:
        # Even before the welcome: what the greeting said is out of date then.
        if self._connection is not None:
            self._connection.write(data)

    async def flush(self) -> None:
        await self._request(frame(frames.FLUSH))

    async def join(self, groups: Sequence[str]) -> None:
        names = [group.encode() for group in groups]
        await self._request(frame(frames.JOIN, b"", pack_many(names)))
        self._groups.update(dict.fromkeys(groups))

    async def leave(self, groups: Sequence[str]) -> None:
        names = [group.encode() for group in groups]
        answer = self._request(frame(frames.LEAVE, b"", pack_many(names)))
        for group in groups:
            self._groups.pop(group, None)
        await answer

    def publish(self, group: str, envelope: Envelope) -> asyncio.Future[None]:
        return self._request(frame(frames.GROUP, group.encode(), envelope.encoded))

    def push_node(self, node: str, envelope: Envelope) -> asyncio.Future[None]:
        return self._request(frame(frames.NODE, node.encode(), envelope.encoded))

    def push(self, queue: str, envelope: Envelope, capacity: int) -> asyncio.Future[None]:
        body = frames.CAPACITY.pack(min(capacity, 0xFFFFFFFF)) + envelope.encoded
        return self._request(frame(frames.PUSH, queue.encode(), body))

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        body = frames.EXPIRES.pack(expires) + queue.encode()
        await self._request(frame(frames.ADD_QUEUE, group.encode(), body))

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._request(frame(frames.DISCARD_QUEUE, group.encode(), queue.encode()))

    def statistics(self) -> Mapping[str, int]:
        hub = self.hub
        counts = dict(self._counters)
        if hub is not None and hub.is_alive:
            counts.update(hub.statistics())
        return counts


def _ignore(answer: asyncio.Future[None]) -> None:
    """Let its error be: the connection's end is told otherwise."""
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
