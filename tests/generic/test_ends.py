"""StopConsumer: the consumer's end is its connection's, without an error, under a real server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets
from asgiref.sync import async_to_sync

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.sse import AsyncEventStreamConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer, channel_layers
from tests.applications import call, serving

#: RFC 6455 section 7.4.1: "1000 indicates a normal closure".
NORMAL = 1000


@pytest.fixture(autouse=True)
def memory() -> None:
    channel_layers.backends["default"] = InMemoryChannelLayer()


@pytest.fixture(autouse=True)
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [each for each in caplog.get_records("call") if each.levelno >= logging.WARNING] == []


class Async(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        if self.scope["path"] == "/connect":
            raise StopConsumer
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "closes":
            await self.close(4001)
            raise StopConsumer
        if text_data == "layer":
            await self.channel_layer.send(self.channel_name, {"type": "stop.now"})
            return
        raise StopConsumer

    async def stop_now(self, event: Message) -> None:
        raise StopConsumer


class Sync(WebsocketConsumer):
    def connect(self) -> None:
        if self.scope["path"] == "/connect":
            raise StopConsumer
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "closes":
            self.close(4001)
            raise StopConsumer
        if text_data == "layer":
            async_to_sync(self.channel_layer.send)(self.channel_name, {"type": "stop.now"})
            return
        raise StopConsumer

    def stop_now(self, event: Message) -> None:
        raise StopConsumer


class RawAsync(AsyncConsumer):
    async def websocket_connect(self, message: Message) -> None:
        if self.scope["path"] == "/connect":
            raise StopConsumer
        await self.send({"type": "websocket.accept"})

    async def websocket_receive(self, message: Message) -> None:
        if message["text"] == "closes":
            await self.send({"type": "websocket.close", "code": 4001})
        if message["text"] == "layer":
            await self.channel_layer.send(self.channel_name, {"type": "stop.now"})
            return
        raise StopConsumer

    async def stop_now(self, event: Message) -> None:
        raise StopConsumer


class RawSync(SyncConsumer):
    def websocket_connect(self, message: Message) -> None:
        if self.scope["path"] == "/connect":
            raise StopConsumer
        self.send({"type": "websocket.accept"})

    def websocket_receive(self, message: Message) -> None:
        if message["text"] == "closes":
            self.send({"type": "websocket.close", "code": 4001})
        if message["text"] == "layer":
            async_to_sync(self.channel_layer.send)(self.channel_name, {"type": "stop.now"})
            return
        raise StopConsumer

    def stop_now(self, event: Message) -> None:
        raise StopConsumer


consumers = pytest.mark.parametrize("consumer", [Async, Sync, RawAsync, RawSync])


@consumers
@pytest.mark.parametrize(
    ("text", "code"), [("receive", NORMAL), ("layer", NORMAL), ("closes", 4001)]
)
async def test_an_open_websocket_is_closed_as_after_its_work(
    consumer: Any, text: str, code: int
) -> None:
    async with (
        serving(consumer.as_asgi()) as host,
        websockets.connect(f"ws://{host}/") as client,
    ):
        await client.send(text)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


@consumers
async def test_a_websocket_that_was_not_accepted_is_refused(consumer: Any) -> None:
    async with serving(consumer.as_asgi()) as host:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://{host}/connect")
        assert refused.value.response.status_code == 403


@consumers
async def test_under_a_foreign_server_one_close_is_sent(consumer: Any) -> None:
    scope = {"type": "websocket", "path": "/"}
    for text, sent in (
        ("receive", {"type": "websocket.close"}),
        ("closes", {"type": "websocket.close", "code": 4001}),
    ):
        _, *ends = await call(
            consumer.as_asgi(),
            scope,
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": text},
        )
        assert ends == [sent]


async def test_nothing_is_sent_to_a_client_that_has_gone() -> None:
    (accept,) = await call(
        Async.as_asgi(),
        {"type": "websocket", "path": "/"},
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1001},
    )
    assert accept["type"] == "websocket.accept"


class Begun(AsyncHttpConsumer):
    ended = 0

    async def handle(self, body: bytes) -> None:
        await self.send_headers()
        await self.send_body(b"begun", more_body=True)
        raise StopConsumer

    async def disconnect(self) -> None:
        type(self).ended += 1


class Stream(AsyncEventStreamConsumer):
    async def connect(self) -> None:
        await self.send_event("begun")
        await self.channel_layer.send(self.channel_name, {"type": "stop.now"})

    async def stop_now(self, event: Message) -> None:
        raise StopConsumer


@pytest.mark.parametrize("consumer", [Begun, Stream])
async def test_a_response_that_has_begun_is_ended_whole(consumer: Any) -> None:
    async with serving(consumer.as_asgi()) as host, httpx.AsyncClient() as client:
        answer = await client.get(f"http://{host}/")
        assert answer.status_code == 200
        assert "begun" in answer.text
    assert consumer is Stream or Begun.ended == 1
