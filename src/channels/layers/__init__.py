"""Channel layers: messages between processes, and to groups of connections."""

import importlib
from typing import TYPE_CHECKING, Any, Final

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.layers.base import BaseChannelLayer
from channels.layers.outbound import broadcast
from channels.layers.registry import ChannelLayerManager, channel_layers, get_channel_layer

if TYPE_CHECKING:
    # For type checkers alone: this is the face of the backends, which stand above it.
    from channels.backends.local.layer import LocalChannelLayer
    from channels.backends.memory.layer import InMemoryChannelLayer
    from channels.backends.nats import NatsChannelLayer
    from channels.backends.postgres import PostgresChannelLayer
    from channels.backends.rabbitmq import RabbitMQChannelLayer
    from channels.backends.redis import RedisChannelLayer, RedisPubSubChannelLayer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelFull",
    "ChannelLayerManager",
    "InMemoryChannelLayer",
    "InvalidChannelLayerError",
    "LocalChannelLayer",
    "NatsChannelLayer",
    "PostgresChannelLayer",
    "RabbitMQChannelLayer",
    "RedisChannelLayer",
    "RedisPubSubChannelLayer",
    "broadcast",
    "channel_layers",
    "get_channel_layer",
]

#: Name -> where it is: backends are imported when they are asked for, since they import drivers.
_BACKENDS: Final = {
    "DatabaseChannelLayer": "channels.backends.database",
    "InMemoryChannelLayer": "channels.backends.memory.layer",
    "LocalChannelLayer": "channels.backends.local.layer",
    "NatsChannelLayer": "channels.backends.nats",
    "PostgresChannelLayer": "channels.backends.postgres",
    "RabbitMQChannelLayer": "channels.backends.rabbitmq",
    "RedisChannelLayer": "channels.backends.redis",
    "RedisPubSubChannelLayer": "channels.backends.redis",
}


def __getattr__(name: str) -> Any:
    if name not in _BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BACKENDS[name]), name)
