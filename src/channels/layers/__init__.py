"""Channel layers: messages between processes, and to groups of connections."""

import importlib
from typing import TYPE_CHECKING, Any, Final

from channels import DEFAULT_CHANNEL_LAYER
from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.layers.base import BaseChannelLayer
from channels.layers.memory import InMemoryChannelLayer
from channels.layers.outbound import broadcast
from channels.layers.registry import ChannelLayerManager, channel_layers, get_channel_layer

if TYPE_CHECKING:
    from channels.layers.hub.layer import LocalChannelLayer
    from channels.layers.nats import NatsChannelLayer
    from channels.layers.postgres import PostgresChannelLayer
    from channels.layers.rabbitmq import RabbitMQChannelLayer
    from channels.layers.redis import RedisChannelLayer, RedisPubSubChannelLayer

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
    # By name: it knows Django, which this wing does not.
    "DatabaseChannelLayer": "channels.database",
    "LocalChannelLayer": "channels.layers.hub.layer",
    "NatsChannelLayer": "channels.layers.nats",
    "PostgresChannelLayer": "channels.layers.postgres",
    "RabbitMQChannelLayer": "channels.layers.rabbitmq",
    "RedisChannelLayer": "channels.layers.redis",
    "RedisPubSubChannelLayer": "channels.layers.redis",
}


def __getattr__(name: str) -> Any:
    if name not in _BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_BACKENDS[name]), name)
