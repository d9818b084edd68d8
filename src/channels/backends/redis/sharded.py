"""The transport over several servers, or several slots of a cluster: each has a share of the keys.

Each group, queue and inbox is on one of them.  They are for load: with one out of reach all sends
wait, as with a single server.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from channels.backends.redis.transport import RedisTransport
from channels.layers.contract import TransportEvents
from channels.layers.names import ALL_NODES


def rendezvous(key: str, names: Sequence[str]) -> int:
    """Which of these servers has a key: the one with the highest score.

    Another server more or less moves only the keys that it has.
    """
    scores = [hashlib.blake2b(f"{name}\0{key}".encode(), digest_size=8).digest() for name in names]
    return scores.index(max(scores))


def _of_owner(name: str) -> Callable[..., Any]:
    """The operation of this name, by the server that has its first argument."""

    def operation(self: ShardedTransport, key: str, *arguments: Any, **keywords: Any) -> Any:
        return getattr(self.owner_of(key), name)(key, *arguments, **keywords)

    return operation


class ShardedTransport:
    """Hands each operation to the server that has its group, process or queue."""

    def __init__(self, servers: Sequence[RedisTransport]) -> None:
        self.capabilities = servers[0].capabilities
        self.availability = servers[0].availability
        self._servers = servers
        self._names = [server.name for server in servers]
        for server in servers:
            server.owner_of = self.owner_of

    def owner_of(self, key: str) -> RedisTransport:
        """The server that has a key."""
        return self._servers[rendezvous(key, self._names)]

    publish = _of_owner("publish")
    push_node = _of_owner("push_node")
    push = _of_owner("push")
    push_later = _of_owner("push_later")
    demand = _of_owner("demand")
    acknowledge = _of_owner("acknowledge")
    release = _of_owner("release")
    extend = _of_owner("extend")
    backlog = _of_owner("backlog")
    add_queue = _of_owner("add_queue")
    discard_queue = _of_owner("discard_queue")

    @property
    def clock_offset(self) -> float:
        return self._servers[0].clock_offset

    async def start(self, node: str, events: TransportEvents) -> None:
        for server in self._servers:
            await server.start(node, events)

    async def stop(self) -> None:
        await asyncio.gather(*(server.stop() for server in self._servers))

    def abandon(self) -> None:
        for server in self._servers:
            server.abandon()

    async def flush(self) -> None:
        for server in self._servers:
            await server.flush()

    async def join(self, groups: Sequence[str]) -> None:
        others = [group for group in groups if group != ALL_NODES]
        for server, its in self._split(others).items():
            await server.join(its)
        if len(others) < len(groups):
            # A process that is found in this one has joined all others; on each server that has
            # lost its state some may be missing.
            await self.owner_of(ALL_NODES).join([ALL_NODES])
            await asyncio.gather(*(server.settle() for server in self._servers))

    async def leave(self, groups: Sequence[str]) -> None:
        for server, its in self._split(groups).items():
            await server.leave(its)

    def _split(self, groups: Sequence[str]) -> Mapping[RedisTransport, list[str]]:
        found: dict[RedisTransport, list[str]] = {}
        for group in groups:
            found.setdefault(self.owner_of(group), []).append(group)
        return found

    def statistics(self) -> Mapping[str, int]:
        counted: Counter[str] = Counter()
        for server in self._servers:
            counted.update(server.statistics())
        return counted
