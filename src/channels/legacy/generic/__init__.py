"""Channels 1's class-based consumers: one instance handles one message."""

from channels.legacy.generic.base import BaseConsumer

__all__ = ["BaseConsumer"]
