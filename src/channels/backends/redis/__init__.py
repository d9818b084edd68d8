"""Channel layers over Redis 5 and later, Valkey, and whatever speaks as they do.

Each process has a lease, which says that it lives, and an inbox; a group is the set of the
processes with members.  A send to a group is one command, which delivers the message to the inbox
of each of them; any other channel than a process's own is a list.  Two connections for a process,
however many queues it reads.

An inbox is a stream (`RedisChannelLayer`) or a subscription (`RedisPubSubChannelLayer`).

What both guarantee
    * A queue's message goes to one process, at most once unless `delivery` says at least once: then
      it is on lease, and comes again if it is not finished.  Capacity is exact.
    * What is delayed or on lease survives what queues survive.  It is put into its queue in time by
      whatever process is connected: exactly by who sent or took it, within five seconds by others.
    * Order: of one sender, and for a group the same for all, on each shard.
    * After Redis lost its state, or is another server, each process registers its groups again and
      tells its listeners of a gap.  Sends wait until the processes that were there before are back,
      up to `settle` seconds, so that they meet groups that are whole.  Lost is what lay unread.

What streams guarantee
    * While a connection is away the inbox keeps what comes.  On reconnect the reader goes on where
      it was, the sender sends again what was not acknowledged, and what arrives twice is dropped:
      nothing lost, doubled or reordered, up to a lease (15 s) and `node_capacity` messages.

What subscriptions guarantee
    * What is sent to groups and processes while the connection is away is lost to the process; it
      learns that by a gap, and by `on_disconnect` and `on_reconnect`.

With several hosts, or a cluster, each group, queue and inbox is on one of them (`sharded`).
"""

from __future__ import annotations

try:
    import hiredis  # noqa: F401 - the extra's drivers
    import redis  # noqa: F401
except ImportError:
    raise ImportError(
        "The Redis channel layers need the packages redis and hiredis: "
        "pip install 'redis[hiredis]'."
    ) from None

from channels.backends.redis.layer import (
    RedisChannelLayer,
    RedisPubSubChannelLayer,
    RedisSentinelChannelLayer,
)

__all__ = ["RedisChannelLayer", "RedisPubSubChannelLayer", "RedisSentinelChannelLayer"]
