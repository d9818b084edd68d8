"""The layer with an inbox for each process."""

from channels.backends.redis import RedisChannelLayer
from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

__all__ = ["BaseChannelLayer", "ChannelFull", "RedisChannelLayer"]
