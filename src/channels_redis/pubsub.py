"""The layer by publish and subscribe."""

from channels.exceptions import ChannelFull
from channels.layers.redis import RedisPubSubChannelLayer

__all__ = ["ChannelFull", "RedisPubSubChannelLayer"]
