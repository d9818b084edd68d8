"""Common mistakes in consumers: each is told in one line that names its cause and its remedy."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from channels.consumer import AsyncConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator


class Silent(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        pass


class SilentSync(WebsocketConsumer):
    def connect(self) -> None:
        pass


@pytest.mark.parametrize(
    ("consumer", "remedy"), [(Silent, "`await self.accept()`"), (SilentSync, "`self.accept()`")]
)
async def test_connect_that_answers_nothing(
    consumer: type[AsyncConsumer], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
        assert (await communicator.connect())[0] is False
    # The next such connections are counted, and told of with a later line.
    assert caplog.messages == [
        f"{consumer.__qualname__}.connect() returned without accept() or close(), so the WebSocket "
        f"is refused: call {remedy}, or set accept_later = True if another handler does."
    ]


class PlainConnect(AsyncWebsocketConsumer):
    def connect(self) -> None:  # type: ignore[override]
        pass


class PlainReceive(AsyncWebsocketConsumer):
    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:  # type: ignore[override]
        pass


class PlainJson(AsyncJsonWebsocketConsumer):
    def receive_json(self, content: Any) -> None:  # type: ignore[override]
        pass


class PlainDisconnect(AsyncWebsocketConsumer):
    def disconnect(self, code: int) -> None:  # type: ignore[override]
        pass


class CoroutineConnect(WebsocketConsumer):
    async def connect(self) -> None:  # type: ignore[override]
        pass


class CoroutineReceive(WebsocketConsumer):
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:  # type: ignore[override]
        pass


class CoroutineJson(JsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:  # type: ignore[override]
        pass


class CoroutineDisconnect(WebsocketConsumer):
    async def disconnect(self, code: int) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("consumer", "method"),
    [
        (PlainConnect, "connect"),
        (PlainReceive, "receive"),
        (PlainJson, "receive_json"),
        (PlainDisconnect, "disconnect"),
        (CoroutineConnect, "connect"),
        (CoroutineReceive, "receive"),
        (CoroutineJson, "receive_json"),
        (CoroutineDisconnect, "disconnect"),
    ],
)
async def test_def_and_async_def_mixed_up(consumer: type[AsyncConsumer], method: str) -> None:
    name = f"{consumer.__name__}.{method}"
    said = (
        f"{name} is not a coroutine function: write `async def`"
        if consumer.__name__.startswith("Plain")
        else f"{name} is a coroutine function: write `def`"
    )
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    with pytest.raises(TypeError, match=said):  # noqa: PT012 - one of these steps meets it
        await communicator.connect()
        await communicator.send_to("{}")
        await communicator.disconnect()
        await communicator.wait()


class Joining(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)


class JoiningSync(WebsocketConsumer):
    groups = ("room",)


async def test_no_channel_layer(caplog: pytest.LogCaptureFixture) -> None:
    former = channel_layers.configs
    channel_layers.configure({})
    try:
        with pytest.raises(AttributeError) as raised:
            await WebsocketCommunicator(Joining.as_asgi(), "/").connect()
        with pytest.raises(
            ValueError, match=r"no layer 'default' that can hold JoiningSync\.groups"
        ):
            await WebsocketCommunicator(JoiningSync.as_asgi(), "/").connect()
    finally:
        channel_layers.configure(former)
    assert raised.value.__notes__ == [
        "There is no channel layer: CHANNEL_LAYERS in the settings has no 'default' (found: none). "
        'Add "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}.'
    ]


class Elsewhere(AsyncWebsocketConsumer):
    channel_layer_alias = "chat"


async def test_an_alias_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "django.channels")
    communicator = WebsocketCommunicator(Elsewhere.as_asgi(), "/")
    assert (await communicator.connect())[0] is True
    await communicator.disconnect()
    assert caplog.messages == [
        "Elsewhere has no channel layer: CHANNEL_LAYERS has no 'chat', which its "
        "channel_layer_alias names."
    ]
