"""Consumers: classes whose methods handle a connection's events.

One consumer instance serves one connection, with one task and one mailbox.  Client events and
layer events come out of that mailbox one after the other; an event's type names the method that
handles it, dots written as underscores.
"""

from channels.consumer.base import AsyncConsumer
from channels.consumer.handlers import get_handler_name
from channels.consumer.sync import SyncConsumer

__all__ = ["AsyncConsumer", "SyncConsumer", "get_handler_name"]
