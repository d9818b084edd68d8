"""What other packages take from here to reach the same Redis as the layer."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from channels.layers.redis.hosts import decode_hosts

__all__ = ["create_pool", "decode_hosts"]


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


def _consistent_hash(value: str | bytes, ring_size: int) -> int:
    """Which of `ring_size` servers other programs that share this rule take for a name."""
    if ring_size == 1:
        return 0
    data = value.encode() if isinstance(value, str) else value
    return int((binascii.crc32(data) & 0xFFF) / (4096 / ring_size))
