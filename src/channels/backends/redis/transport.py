"""The transport over one Redis, several, or a cluster: who has what, and when all are up."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

from channels.backends.redis.calls import Calls
from channels.backends.redis.connection import RedisConnection
from channels.backends.redis.keys import Keys
from channels.backends.redis.options import RedisOptions
from channels.backends.redis.shard import Shard
from channels.exceptions import ChannelFull, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Capabilities, Leased, TransportEvents
from channels.layers.envelope import Envelope

#: Seconds that a good-bye may take.
CLOSE_SECONDS: Final = 0.8


class ShardServer(Protocol):
    """A shard's place: what opens connections to it, and its name for the hash."""

    @property
    def name(self) -> str: ...

    @property
    def tag(self) -> str | None: ...

    def open(self) -> Awaitable[RedisConnection]: ...


def rendezvous(key: str, names: Sequence[str]) -> int:
    """Which of these servers has a key: the one with the highest score.

    Another server more or less moves only the keys that it has.
    """
    scores = [hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest() for name in names]
    return scores.index(max(scores))


class RedisTransport:
    """Moves envelopes through Redis; see `channels.backends.redis`.

    Args:
        servers: One for each shard.
        expiry: How long a message lives, in seconds.
        kind: `Shard`, or `PubSubShard`.
    """

    def __init__(
        self,
        servers: Sequence[ShardServer],
        prefix: str,
        options: RedisOptions,
        expiry: Callable[[], float],
        kind: type[Shard] = Shard,
    ) -> None:
        self.capabilities = Capabilities(delays=True, queue_members=True)
        self._servers = list(servers)
        self._names = [server.name for server in servers]
        self._prefix = prefix
        self._options = options
        self._expiry = expiry
        self._kind = kind
        #: Called when the connection is lost, and when it is back.
        self.on_disconnect: Callable[[], None] = lambda: None
        self.on_reconnect: Callable[[], None] = lambda: None
        self._scope = TaskScope("channel layer on Redis")
        self._counters: Counter[str] = Counter()
        self._up: set[Shard] = set()
        self._kept = True
        self._was_up = False
        self._is_told_down = False
        self._events: TransportEvents
        self.shards: list[Shard] = []

    @property
    def clock_offset(self) -> float:
        return self.shards[0].calls.clock_offset if self.shards else wall_ahead()

    async def start(self, node: str, events: TransportEvents) -> None:
        self._events = events
        self._scope = TaskScope("channel layer on Redis")
        self._up.clear()
        self._kept, self._was_up, self._is_told_down = True, False, False
        self.shards = [
            self._kind(server.open, Keys(self._prefix, server.tag), self._options, self._expiry)
            for server in self._servers
        ]
        for shard in self.shards:
            shard.prepare(node, self, events)
            for work in shard.works():
                self._scope.spawn(work)

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(
                    *(shard.close() for shard in self.shards), return_exceptions=True
                )
        except TimeoutError:
            self._counters["closed_rudely"] += 1
        await self._scope.close()
        self._remember_counters()

    def abandon(self) -> None:
        for shard in self.shards:
            shard.abandon()
        self._remember_counters()

    def _remember_counters(self) -> None:
        for shard in self.shards:
            self._counters.update(shard.statistics())
        self.shards = []

    # Up only when all are: a node has one outbox, and its order holds over all shards.

    def shard_up(self, shard: Shard, kept: bool) -> None:
        self._up.add(shard)
        self._kept = self._kept and kept
        if len(self._up) == len(self.shards):
            kept, self._kept = self._kept, True
            was_down, self._is_told_down = self._is_told_down, False
            self._events.on_up(kept)
            if self._was_up and was_down:
                self.on_reconnect()
            self._was_up = True

    def shard_down(self, shard: Shard, error: BaseException) -> None:
        self._up.discard(shard)
        if not self._is_told_down:
            self._is_told_down = True
            self._counters["disconnected"] += 1
            self._events.on_down(error)
            if self._was_up:
                self.on_disconnect()

    # The operations.

    def _shard(self, key: str) -> Shard:
        shards = self.shards
        if len(shards) == 1:
            return shards[0]
        if not shards:
            raise TransportDown("the transport is stopped")
        return shards[rendezvous(key, self._names)]

    def _split(self, groups: Sequence[str]) -> Mapping[Calls, list[str]]:
        found: dict[Calls, list[str]] = {}
        for group in groups:
            found.setdefault(self._shard(group).calls, []).append(group)
        return found

    async def flush(self) -> None:
        for shard in self.shards:
            await shard.calls.flush()

    async def join(self, groups: Sequence[str]) -> None:
        for calls, its in self._split(groups).items():
            await calls.join(its)

    async def leave(self, groups: Sequence[str]) -> None:
        for calls, its in self._split(groups).items():
            await calls.leave(its)

    async def publish(self, group: str, envelope: Envelope) -> None:
        queues = await self._shard(group).calls.publish(group, envelope, len(self.shards) > 1)
        if queues:
            await self._fill(group, envelope, queues)

    async def _fill(
        self, group: str, envelope: Envelope, queues: Sequence[tuple[str, int]]
    ) -> None:
        """Push to a group's queues, wherever they are."""
        full = 0
        done: list[str] = []
        try:
            for queue, capacity in queues:
                try:
                    await self._shard(queue).calls.push(queue, envelope, capacity)
                except ChannelFull:
                    full += 1
                else:
                    done.append(queue)
        except TransportDown:
            # The whole is asked for again: these shall not get it twice.
            for queue in done:
                self._shard(queue).calls.note_pushed(queue, envelope)
            raise
        if full:
            self._events.on_over_capacity(group, full, len(queues))

    def push_node(self, node: str, envelope: Envelope) -> Coroutine[Any, Any, None]:
        return self._shard(node).calls.push_node(node, envelope)

    def push(self, queue: str, envelope: Envelope, capacity: int) -> Coroutine[Any, Any, None]:
        return self._shard(queue).calls.push(queue, envelope, capacity)

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        shard = self._shard(queue)
        await shard.calls.push_later(queue, envelope, due, bound)
        shard.ticker.due_in(due - time.monotonic() - shard.calls.clock_offset)

    def demand(
        self, queue: str, count: int, seconds: float, taker: Callable[[Leased], None]
    ) -> None:
        if self.shards:
            self._shard(queue).queues.demand(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:
        return await self._shard(queue).calls.acknowledge(token)

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:
        shard = self._shard(queue)
        done = await shard.calls.release(token, delay, counted)
        shard.ticker.due_in(delay)
        return done

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:
        return await self._shard(queue).calls.extend(token, seconds)

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        capacity = self._events.capacity_of(queue)
        await self._shard(group).calls.add_queue(group, queue, expires, capacity)

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._shard(group).calls.discard_queue(group, queue)

    def statistics(self) -> Mapping[str, int]:
        counted = Counter(self._counters)
        for shard in self.shards:
            counted.update(shard.statistics())
        return counted
