"""The layer with an inbox for each process."""

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer
from channels.layers.redis import RedisChannelLayer

__all__ = ["BaseChannelLayer", "ChannelFull", "RedisChannelLayer"]
