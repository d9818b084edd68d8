"""Channel layers over Redis 5 and later, Valkey, and whatever speaks as they do.

Inboxes (`RedisChannelLayer`)
    Each process has an inbox, a stream, and a lease that says it lives.  A group is the set of the
    processes with members.  A send to a group is one command, which appends the message to the
    inbox of each of them; a send to a channel of a process appends to its inbox; any other channel
    is a list.  Two connections for a process, however many queues it reads.

Publish and subscribe (`RedisPubSubChannelLayer`)
    A process is subscribed to its groups while they have members.  One cheap command for a send to
    a group; no lease and no inbox.  Queues as above.

What inboxes guarantee
    * While a connection is away the inbox keeps what comes.  On reconnect the reader goes on where
      it was, the sender sends again what was not acknowledged, and what arrives twice is dropped:
      nothing lost, doubled or reordered, up to a lease (15 s) and `node_capacity` messages.
    * After Redis lost its state (killed without persistence, or failed over to a replica that was
      behind) each process registers its groups again and tells its listeners of a gap.  Sends wait
      until the processes that were there before are back, up to `settle` seconds, so that they
      meet groups that are whole.  Lost is what lay unread.
    * A queue's message goes to one process, at most once unless `delivery` says at least once: then
      it is on lease, and comes again if it is not finished.  Capacity is exact.
    * What is delayed or on lease survives what queues survive.  It is put into its queue in time by
      whatever process is connected: exactly by who sent or took it, within five seconds by others.
    * Order: of one sender, and for a group the same for all, on each shard.

What publish and subscribe guarantees
    * Order and capacities as above.  What is sent to groups and processes while one of these is not
      connected is lost to it; it learns that by a gap, and by `on_disconnect` and `on_reconnect`.

With several hosts, or a cluster, each group, queue and inbox is on one shard (rendezvous hashing).
They are for load: with one out of reach all sends wait, as with a single server.
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
