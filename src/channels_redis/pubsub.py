"""The layer by publish and subscribe."""

from channels.backends.redis import RedisPubSubChannelLayer
from channels.exceptions import ChannelFull

__all__ = ["ChannelFull", "RedisPubSubChannelLayer"]
