"""Channel layers: messages between processes, and to groups of connections."""

from channels import DEFAULT_CHANNEL_LAYER
from channels.layers.base import BaseChannelLayer
from channels.layers.memory import InMemoryChannelLayer
from channels.layers.outbound import broadcast
from channels.layers.registry import ChannelLayerManager, channel_layers, get_channel_layer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelLayerManager",
    "InMemoryChannelLayer",
    "broadcast",
    "channel_layers",
    "get_channel_layer",
]
