"""Names that a BACKEND setting may carry for layers that live here.

Settings written for other packages, and for Channels 1, name classes that no longer exist or that
another distribution owns.  A row says which class of ours takes the place, and what becomes of the
CONFIG keys that it does not know by the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a layer lives and how older CONFIG keys read in its words."""

    path: str
    #: Old CONFIG key -> ours.
    renamed: Mapping[str, str] = field(default_factory=dict)
    #: Old CONFIG keys that mean nothing here and may stand in settings unharmed.
    ignored: frozenset[str] = frozenset()

    def translate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """CONFIG in our words."""
        return {
            self.renamed.get(key, key): value
            for key, value in config.items()
            if key not in self.ignored
        }


_MEMORY = Backend("channels.backends.memory.layer.InMemoryChannelLayer")
#: `prefix`, `message_memory` and `group_memory` are words of its own.
_LOCAL = Backend("channels.backends.local.layer.LocalChannelLayer")
_REDIS = Backend("channels.backends.redis.RedisChannelLayer", ignored=frozenset({"stats_prefix"}))
_PUBSUB = Backend("channels.backends.redis.RedisPubSubChannelLayer")
_SENTINEL = Backend(
    "channels.backends.redis.RedisSentinelChannelLayer",
    ignored=frozenset({"stats_prefix", "sentinel_refresh_interval"}),
)
_RABBITMQ = Backend(
    "channels.backends.rabbitmq.RabbitMQChannelLayer",
    renamed={"host": "url", "local_capacity": "capacity", "remote_capacity": "node_capacity"},
    ignored=frozenset({"local_expiry", "groups_exchange"}),
)

#: What stands in BACKEND -> the layer of ours.  Backends add their rows here.
BACKENDS: Final[dict[str, Backend]] = {
    "asgi_ipc.IPCChannelLayer": _LOCAL,
    "asgiref.inmemory.ChannelLayer": _MEMORY,
    "channels_redis.core.RedisChannelLayer": _REDIS,
    "channels_redis.pubsub.RedisPubSubChannelLayer": _PUBSUB,
    "asgi_redis.RedisChannelLayer": _REDIS,
    "asgi_redis.core.RedisChannelLayer": _REDIS,
    "asgi_redis.RedisLocalChannelLayer": _REDIS,
    "asgi_redis.RedisSentinelChannelLayer": _SENTINEL,
    "channels.layers.RabbitMQChannelLayer": _RABBITMQ,
    "channels_rabbitmq.core.RabbitmqChannelLayer": _RABBITMQ,
    "asgi_rabbitmq.RabbitmqChannelLayer": _RABBITMQ,
    "asgi_rabbitmq.core.RabbitmqChannelLayer": _RABBITMQ,
    "asgi_rabbitmq.RabbitmqLocalChannelLayer": _RABBITMQ,
}


def find_backend(name: str) -> Backend:
    """The row for a BACKEND name; any other name is its own path, with CONFIG as it stands."""
    return BACKENDS.get(name) or Backend(name)
