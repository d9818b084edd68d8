"""Channels and groups under the module name of Channels 1."""

from channels.legacy.channel import (
    Channel,
    Group,
)

__all__ = ["Channel", "Group"]
