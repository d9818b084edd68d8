"""Where Channels 1 had the model of delayed messages."""

from channels.legacy.delay.models import DelayedMessage, DelayedMessageQuerySet

__all__ = ["DelayedMessage", "DelayedMessageQuerySet"]
