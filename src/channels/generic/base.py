"""Where Channels 1 had `BaseConsumer`."""

from channels.legacy.generic.base import BaseConsumer

__all__ = ["BaseConsumer"]
