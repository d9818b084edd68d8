"""Testing tools: run applications and consumers without a server, or with a real one."""

from channels.testing.application import ApplicationCommunicator
from channels.testing.http import HttpCommunicator
from channels.testing.live import ChannelsLiveServerTestCase
from channels.testing.websocket import WebsocketCommunicator

__all__ = [
    "ApplicationCommunicator",
    "ChannelsLiveServerTestCase",
    "HttpCommunicator",
    "WebsocketCommunicator",
]
