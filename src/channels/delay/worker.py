"""Where Channels 1 had the worker for delayed messages."""

from channels.legacy.delay.worker import Worker

__all__ = ["Worker"]
