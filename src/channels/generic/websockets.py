"""Where Channels 1 had its WebSocket consumers; those of Channels 2 to 4: `generic.websocket`."""

from channels.legacy.generic.multiplexing import WebsocketDemultiplexer, WebsocketMultiplexer
from channels.legacy.generic.websockets import JsonWebsocketConsumer, WebsocketConsumer

__all__ = [
    "JsonWebsocketConsumer",
    "WebsocketConsumer",
    "WebsocketDemultiplexer",
    "WebsocketMultiplexer",
]
