"""Where Channels 1 had its test cases and its plain client."""

from channels.legacy.test.cases import (
    ChannelTestCase,
    ChannelTestCaseMixin,
    TransactionChannelTestCase,
)
from channels.legacy.test.client import Client
from channels.legacy.test.routes import apply_routes

__all__ = [
    "ChannelTestCase",
    "ChannelTestCaseMixin",
    "Client",
    "TransactionChannelTestCase",
    "apply_routes",
]
