"""Clients of redis-py on a layer's hosts, for what an application keeps in Redis beside the layer.

They are not what the layer itself uses.  A client belongs to one event loop, as redis-py's do.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

Loop = asyncio.AbstractEventLoop


def create_pool(host: Mapping[str, Any]) -> Any:
    """A pool of redis-py for an entry of `decode_hosts`; it is the caller's to close."""
    keywords = dict(host)
    address = keywords.pop("address", None)
    if address is not None:
        if isinstance(address, str):
            return ConnectionPool.from_url(address, **keywords)
        keywords["host"], keywords["port"] = address
    if "sentinels" not in keywords:
        return ConnectionPool(**keywords)
    sentinels = keywords.pop("sentinels")
    watched = Sentinel(sentinels, sentinel_kwargs=keywords.pop("sentinel_kwargs", None))
    return SentinelConnectionPool(keywords.pop("master_name"), watched, **keywords)


class Clients:
    """One client for each host and loop."""

    def __init__(self, hosts: Sequence[Mapping[str, Any]]) -> None:
        self._hosts = hosts
        self._clients: weakref.WeakKeyDictionary[Loop, dict[int, Any]] = weakref.WeakKeyDictionary()

    def client(self, index: int) -> Any:
        """The running loop's client of a host; -1 is the last one's.

        Raises:
            ValueError: If there is no such host.
        """
        count = len(self._hosts)
        if not -count <= index < count:
            raise ValueError(f"There are only {count} hosts: {index} was asked for.")
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if index % count not in clients:
            pool = create_pool(self._hosts[index])
            clients[index % count] = Redis(connection_pool=pool)
        return clients[index % count]

    async def close(self) -> None:
        """Close those of the running loop."""
        clients = self._clients.pop(asyncio.get_running_loop(), {})
        for client in clients.values():
            await client.aclose(close_connection_pool=True)
