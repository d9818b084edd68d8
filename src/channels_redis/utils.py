"""What other packages take from here to reach the same Redis as the layer."""

from __future__ import annotations

from typing import Any

from channels.backends.redis.clients import create_pool
from channels.backends.redis.hosts import decode_hosts
from channels.backends.redis.layer import shard_of

__all__ = ["create_pool", "decode_hosts"]


async def _close_redis(connection: Any) -> None:
    """Close a client with its pool."""
    await connection.aclose(close_connection_pool=True)


#: Which of `ring_size` servers other programs that share this rule take for a name.
_consistent_hash = shard_of
