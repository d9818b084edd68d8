"""Consumers: classes whose methods handle a connection's events.

One consumer instance serves one connection, with one task and one mailbox.  Client events and
layer events come out of that mailbox one after the other; an event's type names the method that
handles it, dots written as underscores.
"""

from channels.consumer.base import AsyncConsumer
from channels.consumer.client_limits import ClientLimits
from channels.consumer.handlers import get_handler_name
from channels.consumer.sync import SyncConsumer
from channels.exceptions import StopConsumer
from channels.layers import get_channel_layer
from channels.utils import await_many_dispatch

#: `get_channel_layer` is what consumers call: tests replace it here.
__all__ = [
    "AsyncConsumer",
    "ClientLimits",
    "StopConsumer",
    "SyncConsumer",
    "await_many_dispatch",
    "get_channel_layer",
    "get_handler_name",
]
