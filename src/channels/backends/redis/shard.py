"""One Redis server, or one slot's owner in a cluster, as a process uses it.

Two connections: for commands, and for what comes in.  This module holds the first, keeps the
process's lease alive, and says after each break what is left of its state: the lease (has anyone
taken us for dead?) and the epoch (is it the Redis that we knew?).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Protocol

from redis.exceptions import RedisError, ResponseError

from channels.backends.lease_reader import LeaseReader
from channels.backends.redis import scripts
from channels.backends.redis.calls import GROUP_LIFE, KEEP
from channels.backends.redis.connection import RedisConnection
from channels.backends.redis.held import HeldCalls
from channels.backends.redis.inbox import InboxReader
from channels.backends.redis.keys import Keys
from channels.backends.redis.line import LONGEST_PAUSE, CommandConnection, StateLost
from channels.backends.redis.options import RedisOptions
from channels.backends.shell import Backoff, Supervisor
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable
from channels.layers.contract import TransportEvents
from channels.layers.names import new_node

logger = logging.getLogger("channels.layers")

#: Milliseconds for which a layer that nobody uses is remembered.
EPOCH_LIFE: Final = 7 * 86_400_000


#: Seconds that a process may take to notice that Redis is back, beside its pause; and between two
#: looks whether all are.
_WAKE_SECONDS: Final = 0.2
_COUNT_SECONDS: Final = 0.05
#: Seconds between two renewals of a process's lease.  A process that only listens learns by them
#: that Redis has forgotten it; one that sends, by its next command.
RENEW_SECONDS: Final = 0.5

#: Seconds between two looks at a queue that nobody was woken for.
LOOK_SECONDS: Final = 4.0

#: Entries that were read and are still in an inbox, of those that count against its bound.
_READ_KEPT: Final = 50


class ShardOwner(Protocol):
    """What a shard tells its transport."""

    def shard_up(self, shard: Shard, kept: bool) -> None:
        """Connected; `kept`: lease and epoch are those of before."""

    def shard_down(self, shard: Shard, error: BaseException) -> None:
        """Not connected any more, or still not."""


class Shard:
    """A process's share in one server.

    Attributes:
        waits_by: How queues wake this process; see `queue_scripts.WAKE`.

    Args:
        open_connection: Opens one to the server.
        queue_life: Seconds after which an unread queue may be forgotten as a whole.
    """

    waits_by: ClassVar[str] = "s"

    def __init__(
        self,
        open_connection: Callable[[], Awaitable[RedisConnection]],
        keys: Keys,
        options: RedisOptions,
        queue_life: Callable[[], float],
    ) -> None:
        self.keys = keys
        self.line = CommandConnection(options.answer_timeout)
        self.calls = self._make_calls(queue_life, options)
        self._open_connection = open_connection
        self._options = options
        self._epoch: tuple[bytes, str] | None = None
        self._server_run = ""
        #: The connection that began this process's unbroken row of leases; see `scripts.OPEN`.
        self._chain = ""
        #: Processes that were there when they were counted last; 0: not known.
        self.nodes = 0
        self._settle_least = 0.0
        self._owner: ShardOwner
        self._events: TransportEvents
        self.backoff = Backoff(longest=LONGEST_PAUSE)
        self.queues: LeaseReader
        self.ticker: Ticker

    def _make_calls(self, queue_life: Callable[[], float], options: RedisOptions) -> HeldCalls:
        return HeldCalls(self.keys, self.line, options, queue_life)

    def prepare(self, node: str, owner: ShardOwner, events: TransportEvents) -> None:
        """Before `run`: whose shard it is."""
        self._owner, self._events = owner, events
        self.calls.serve(node)
        self.calls.on_over_capacity = events.on_over_capacity
        self.calls.waiter = f"{self.waits_by}{node}"
        self.ticker = Ticker()
        self.queues = LeaseReader(self.calls, self.ticker)
        self.inbox = self._make_inbox(node)

    def _make_inbox(self, node: str) -> InboxReader | None:
        return InboxReader(
            self._open_connection,
            self.keys.inbox(node),
            self._on_frame,
            self._options.answer_timeout,
            keep=min(_READ_KEPT, self._options.node_capacity // 50),
        )

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """What runs as long as the transport does."""
        told = partial(self._owner.shard_down, self)
        errors = (RedisError, ChannelLayerUnavailable)
        supervisor = Supervisor("Redis", self._serve, errors, told, self.backoff)
        works = [supervisor.run(), self._look(), self.ticker.run(self.calls.tick)]
        if (inbox := self.inbox) is not None:
            reader = Supervisor("Redis", inbox.serve, (RedisError,), inbox.note_down, inbox.backoff)
            works.append(reader.run())
        return works

    # Life.

    async def _serve(self) -> None:
        """Be connected for commands until that breaks."""
        connection = await self._open_connection()
        self.backoff.made()
        await self.line.serve(connection, self._greet)

    async def _look(self) -> None:
        """Ask the queues again now and then.

        Who puts a message into one wakes the process that came to wait last.  A process that died
        is passed over; all else that gets lost is found so.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.queues.resume()

    async def _greet(self) -> None:
        """Beside the line, as long as that serves."""
        self._be_up(await self._open())
        await self._settle()
        await self._renew_for_ever()

    async def _settle(self) -> None:
        """After a loss of state: hold sends until those who were here before are back."""
        # Who came after the last count is not in it.  It has time enough to connect, too.
        await asyncio.sleep(self._settle_least)
        while self.line.is_held and self.nodes:
            if await self.calls.count_nodes() >= self.nodes:
                self.line.end_hold()
                return
            await asyncio.sleep(_COUNT_SECONDS)

    def _be_up(self, kept: bool) -> None:
        self.backoff.reset()
        self.line.open()
        self._owner.shard_up(self, kept)
        self.queues.resume()

    async def close(self) -> None:
        """Say good-bye; may take a while if Redis does not answer."""
        await self.queues.quiesce()
        if self.line.is_open:
            await self.calls.leave(list(self.calls.joined))
            command = scripts.evaluation(scripts.CLOSE, self.calls.own, self.calls.token)
            await self.line.call(*command)

    def abandon(self) -> None:
        """Let go without the loop."""
        self.line.abandon()
        if self.inbox is not None:
            self.inbox.abandon()

    def _on_frame(self, data: bytes) -> None:
        """Something came for this process: an envelope, or a word that a queue is not empty."""
        if data[:1] == b"\0":
            self.queues.woken(data[1:].decode(errors="replace"))
        else:
            self._events.on_frame(data)

    def statistics(self) -> Mapping[str, int]:
        """What it has counted."""
        if self.inbox is None:
            return self.calls.counters
        return {**self.calls.counters, "reader_reconnected": self.inbox.reconnected}

    async def _open(self) -> bool:
        """Introduce this process; true if the server still knows it and nothing was lost."""
        call = self.line.call_first
        try:
            self._recognise(await call("INFO", "server"))
        except ResponseError as error:
            # Its rules may forbid that; then the oldest commands serve.
            logger.debug("Redis does not say what it is: %s", error)
        await scripts.load(self.line)
        own, base = self.calls.own, self.calls.next_index()
        before = time.monotonic()
        connection = new_node()
        epoch, alive, last, refused, now = await call(
            *scripts.evaluation(
                scripts.OPEN,
                (self.keys.epoch, own.lease, own.sequence, own.refused),
                *(new_node(), int(self._options.lease * 1000), base, KEEP, EPOCH_LIFE),
                *(connection, self._chain),
            )
        )
        self._chain = self._chain if alive else connection
        self.calls.token = f"{self._chain}:{connection}"
        self._tell_time(before, now)
        self._settle_least = 0.0
        known, self._epoch = self._epoch, (epoch, self._server_run)
        self.calls.learn(int(last), {int(index) for index in refused})
        kept = known is not None and known[0] == epoch and bool(alive)
        if known is not None and known != self._epoch:
            # Another server, or one that was started anew: all processes are coming back now.
            self.line.hold(self._options.settle)
            self._settle_least = min(self._options.settle, _WAKE_SECONDS + 1.5 * self.backoff.due)
        if not kept:
            self.calls.joined.clear()
            if known is not None and self.inbox is not None:
                self.inbox.restart()
        return kept

    def _recognise(self, info: Any) -> None:
        """What the server is and can."""
        found = dict(
            line.split(":", 1)
            for line in bytes(info).decode(errors="replace").splitlines()
            if ":" in line
        )
        version = tuple(
            int(part) for part in found.get("redis_version", "5.0").split(".")[:2] if part.isdigit()
        )
        self._server_run = found.get("run_id", "")
        if self.inbox is not None:
            self.inbox.trims_by_id = version >= (6, 2)

    def _tell_time(self, before: float, now: bytes) -> None:
        after = time.monotonic()
        self.calls.clock_offset = int(now) / 1000 - (before + after) / 2

    async def _renew_for_ever(self) -> None:
        """Keep the lease; it also finds a connection that is dead, and a state that is lost."""
        own = self.calls.own
        every = self._options.lease / 3
        rejoin_at = time.monotonic() + GROUP_LIFE / 4000
        command = scripts.evaluation(
            scripts.RENEW,
            (self.keys.epoch, own.lease, own.inbox, own.overflow, own.sequence),
            *(int(self._options.lease * 1000), KEEP, EPOCH_LIFE, self.calls.token),
        )
        count_at = 0.0
        while True:
            await asyncio.sleep(min(every, RENEW_SECONDS))
            before = time.monotonic()
            epoch, now, missed = await self.line.call_first(*command)
            self._tell_time(before, now)
            if self._epoch is None or epoch != self._epoch[0]:
                raise StateLost("Redis lost its state: this process introduces itself again")
            if time.monotonic() >= count_at:
                count_at = time.monotonic() + every
                self.nodes = await self.calls.count_nodes()
            if missed:
                self.calls.counters["inbox_overflows"] += 1
                self._events.on_gap([group.decode() for group in missed])
            if time.monotonic() > rejoin_at:
                rejoin_at = time.monotonic() + GROUP_LIFE / 4000
                await self.calls.join(list(self.calls.joined))
