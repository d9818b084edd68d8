"""Tools for tests of Channels 1 consumers: layers in memory, clients, routes for one test."""

from channels.legacy.test.cases import ChannelTestCase, TransactionChannelTestCase
from channels.legacy.test.client import Client
from channels.legacy.test.live import ChannelLiveServerTestCase
from channels.legacy.test.routes import apply_routes
from channels.legacy.test.websocket import WSClient

#: The name that it had before.
HttpClient = WSClient

__all__ = [
    "ChannelLiveServerTestCase",
    "ChannelTestCase",
    "Client",
    "HttpClient",
    "TransactionChannelTestCase",
    "WSClient",
    "apply_routes",
]
