"""The layer with an inbox for each process."""

from channels.exceptions import ChannelFull
from channels.layers.redis import RedisChannelLayer

__all__ = ["ChannelFull", "RedisChannelLayer"]
