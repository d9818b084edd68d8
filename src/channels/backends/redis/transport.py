"""The transport over one Redis server, or one slot's owner in a cluster.

Two connections, which live and die together: for commands, and for what comes in.  A process has a
lease, which says that it lives.  After each break it asks what is left of its state: whether the
lease ran on (has anyone taken it for dead?) and whether it is the server that it knew.  If not, it
joins its groups again, and sends nothing until the processes that were there before have done so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from channels.backends.redis import scripts
from channels.backends.redis.connection import RedisConnection
from channels.backends.redis.inbox import StreamInbox, SubscriptionInbox
from channels.backends.redis.operations import RedisOperations, key_base
from channels.backends.redis.options import RedisOptions
from channels.backends.shell import Backoff, Supervisor, run_until_one_fails, watch_silence
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.contract import TransportEvents
from channels.layers.names import ALL_NODES, new_node

logger = logging.getLogger("channels.layers")

#: Seconds that a good-bye may take.
CLOSE_SECONDS: Final = 0.8
#: Seconds between attempts to connect, at most: less than the time for which senders wait after a
#: loss of state (`settle`), so that all are back before anything is sent again.
LONGEST_PAUSE: Final = 0.4
#: Seconds that a process may take to notice that Redis is back, beside its pause; and between two
#: looks whether all are.
_WAKE_SECONDS: Final = 0.2
_COUNT_SECONDS: Final = 0.05
#: Seconds between two renewals of a process's lease.  A process that only listens learns by them
#: that Redis has forgotten it; one that sends, by its next command.
RENEW_SECONDS: Final = 0.5
#: Seconds after which a process joins its groups again, which Redis keeps for a day.
REJOIN_SECONDS: Final = 6 * 3600.0
#: Seconds between two looks at a queue that nobody was woken for.
LOOK_SECONDS: Final = 4.0


class RedisServer(Protocol):
    """Where a transport's connections go, and its name for the hash."""

    @property
    def name(self) -> str: ...

    @property
    def tag(self) -> str | None: ...

    def open(self) -> Awaitable[RedisConnection]: ...


class Availability:
    """Whether a layer has Redis: when all its servers are connected, since a layer has one order.

    Attributes:
        on_disconnect: Called when the connection is lost.
        on_reconnect: Called when it is back.
    """

    def __init__(self, servers: int) -> None:
        self.on_disconnect: Callable[[], None] = lambda: None
        self.on_reconnect: Callable[[], None] = lambda: None
        self._servers = servers
        self._events: TransportEvents
        self._up: set[RedisTransport] = set()
        self._kept = True
        self._was_up = False

    def reset(self, events: TransportEvents) -> None:
        """The layer starts anew."""
        self._events = events
        self._up.clear()
        self._kept, self._was_up = True, False

    def up(self, server: RedisTransport, kept: bool) -> None:
        """This server is connected; `kept`: as for `TransportEvents.on_up`."""
        self._up.add(server)
        self._kept = self._kept and kept
        if len(self._up) == self._servers:
            kept, self._kept = self._kept, True
            self._events.on_up(kept)
            if self._was_up:
                self.on_reconnect()
            self._was_up = True

    def down(self, server: RedisTransport, error: BaseException) -> bool:
        """This server is not connected, or still not; returns whether the layer was until now."""
        was_up = len(self._up) == self._servers
        self._up.discard(server)
        self._events.on_down(error)
        if was_up:
            self.on_disconnect()
        return was_up


class RedisTransport(RedisOperations):
    """Moves envelopes through one server.

    Attributes:
        nodes: Processes that are there; 0: not known, or only another server knows.
        is_settling: Redis has lost its state, and those who were there may not be back yet.

    Args:
        inbox: How the process hears from the others.
        availability: Shared by the transports of a layer.
    """

    def __init__(
        self,
        server: RedisServer,
        prefix: str,
        options: RedisOptions,
        inbox: type[StreamInbox | SubscriptionInbox],
        availability: Availability,
    ) -> None:
        super().__init__(key_base(prefix, server.tag), options)
        self.availability = availability
        self.name = server.name
        self.nodes = 0
        self.is_settling = False
        self._server = server
        self._inbox_type = inbox
        self._backoff = Backoff(longest=LONGEST_PAUSE)
        self._scope = TaskScope("channel layer on Redis")
        self._connections: list[RedisConnection] = []
        self._inbox: StreamInbox | SubscriptionInbox
        #: The connection that began this process's unbroken row of leases; "": none yet.
        self._chain = ""
        self._server_run = b""
        #: The last renewal has told of groups that overflowed.
        self._knows_missed = False

    async def start(self, node: str, events: TransportEvents) -> None:
        self.availability.reset(events)
        self.joined.clear()
        self._node, self._session, self._chain = node, new_node(), ""
        self._events, self.is_settling, self.nodes = events, False, 0
        self._begin_reading()
        self._inbox = self._inbox_type(
            f"{self._base}in:{node}", self._on_frame, self._options.node_capacity
        )
        self._scope = TaskScope("channel layer on Redis")
        errors = (RedisError, ChannelLayerUnavailable)
        supervisor = Supervisor("Redis", self._serve, errors, self._on_down, self._backoff)
        for work in (supervisor.run(), self._look(), self._ticker.run(self._tick)):
            self._scope.spawn(work)

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._say_goodbye()
        except (TimeoutError, TransportDown, ChannelLayerUnavailable) as error:
            logger.debug("Redis is left without a word: %s", error)
            self._counters["closed_rudely"] += 1
        await self._scope.close()

    async def _say_goodbye(self) -> None:
        await self._leases.quiesce()
        if self.is_open:
            await self.leave(list(self.joined))
            await self._run(scripts.CLOSE, self._node, self._session)

    def abandon(self) -> None:
        self._commands = None
        for connection in self._connections:
            connection.abandon()
        self._connections.clear()

    async def join(self, groups: Any) -> None:
        await super().join(groups)
        # It is joined last.
        if ALL_NODES in groups:
            await self.settle()

    async def settle(self) -> None:
        """After a loss of state: wait until those who were here before are back, or for `settle`.

        Raises:
            TransportDown: If the connection breaks meanwhile.
        """
        commands = self._commands
        if not self.is_settling or commands is None:
            return
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._options.settle
        # Who came after the last count is not in it.  It has time enough to connect, too.
        pause = _WAKE_SECONDS + 1.5 * self._backoff.due
        while (left := ends_at - loop.time()) > 0:
            await asyncio.wait([commands.ended], timeout=min(pause, left))
            if commands.ended.done():
                raise TransportDown("the connection to Redis broke")
            if self.nodes and await self._renew() >= self.nodes:
                break
            pause = _COUNT_SECONDS
        self.is_settling = False

    def statistics(self) -> Mapping[str, int]:
        return self._counters

    # Life.

    async def _serve(self) -> None:
        """Be connected until one of the connections breaks."""
        opened = self._connections = [await self._server.open()]
        try:
            opened.append(await self._server.open())
            commands, incoming = opened
            self._backoff.made()
            longest = self._inbox_type.longest_silence + self._options.answer_timeout
            await run_until_one_fails(
                commands.serve(),
                incoming.serve(),
                watch_silence("Redis", commands.silent, self._options.answer_timeout),
                watch_silence("Redis", lambda now: now - incoming.heard, longest),
                self._live(commands, incoming),
            )
        finally:
            self._commands = None
            for connection in opened:
                connection.close()

    async def _live(self, commands: RedisConnection, incoming: RedisConnection) -> None:
        kept = await self._introduce(commands)
        await self._inbox.read(incoming, kept)
        self._commands = commands
        self._backoff.reset()
        # What was published while it was not subscribed is lost.
        self.availability.up(self, kept and self._inbox_type is StreamInbox)
        self._leases.resume()
        rejoin_at = time.monotonic() + REJOIN_SECONDS
        while True:
            await asyncio.sleep(min(self._options.lease / 3, RENEW_SECONDS))
            nodes = await self._renew()
            if not self.is_settling:
                self.nodes = nodes
            if time.monotonic() > rejoin_at:
                rejoin_at = time.monotonic() + REJOIN_SECONDS
                await super().join(list(self.joined))

    async def _introduce(self, connection: RedisConnection) -> bool:
        """Introduce this process; true if the server still knows it and nothing was lost."""
        # In one round trip: a process is away for as long as this takes.  A server that loses the
        # scripts breaks the connection, and the next one loads them again.
        await asyncio.gather(*(connection.call("SCRIPT", "LOAD", source) for source in scripts.ALL))
        name = self._inbox_type.kind + new_node()
        before = time.monotonic()
        alive, run, last, refused, now = await connection.call(
            *scripts.evaluation(
                *(scripts.OPEN, f"{self._base}al:{self._node}", name, self._base, self._chain),
                *(self._session, int(self._options.lease * 1000)),
            )
        )
        self._tell_time(before, now)
        self._learn(int(last), set(map(int, refused)))
        was_known, is_same = bool(self._chain), run == self._server_run
        self._chain, self._server_run = self._chain if alive else name, run
        self.token = f"{self._chain}:{name}"
        kept = bool(alive) and is_same
        if not kept:
            self.joined.clear()
            self.is_settling = self.is_settling or was_known
        return kept

    async def _renew(self) -> int:
        """Renew the lease; returns how many processes there are.

        It also finds a connection that is dead, and a state that is lost.
        """
        before = time.monotonic()
        knows, self._knows_missed = self._knows_missed, False
        now, missed, nodes = await self._run(
            *(scripts.RENEW, self._node, self._session),
            *(int(self._options.lease * 1000), ALL_NODES, int(knows)),
        )
        self._tell_time(before, now)
        self._knows_missed = bool(missed)
        if missed:
            self._counters["inbox_overflows"] += 1
            self._events.on_gap([group.decode() for group in missed])
        return int(nodes)

    async def _look(self) -> None:
        """Ask the queues again now and then.

        Who puts a message into one wakes the process that came to wait last.  A process that died
        is passed over; all else that gets lost is found so.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._leases.resume()

    def _on_down(self, error: BaseException) -> None:
        self._counters["disconnected"] += self.availability.down(self, error)

    def _on_frame(self, data: bytes) -> None:
        """Something came for this process: an envelope, or a word that a queue is not empty."""
        if data[:1] == b"\0":
            self._leases.woken(data[1:].decode(errors="replace"))
        else:
            self._events.on_frame(data)

    def _tell_time(self, before: float, now: bytes) -> None:
        self.clock_offset = int(now) / 1000 - (before + time.monotonic()) / 2
