"""What one client of a consumer class may do: over the limit its WebSocket closes, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import websockets
from asgiref.sync import async_to_sync

from channels.consumer import ClientLimits
from channels.consumer.base import AsyncConsumer
from channels.exceptions import ClientLimitExceeded, InvalidOption
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.types import Receive, Scope, Send
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.server.counts import counts
from tests.applications import serving

PATIENCE = 5
left: list[int] = []


@pytest.fixture(autouse=True)
def memory(no_layers: None) -> InMemoryChannelLayer:
    left.clear()
    layer = channel_layers.backends["default"] = InMemoryChannelLayer()
    return layer


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data and text_data.startswith("join "):
            await self.channel_layer.group_add(text_data.removeprefix("join "), self.channel_name)
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        left.append(code)


class SyncEcho(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data and text_data.startswith("join "):
            add = async_to_sync(self.channel_layer.group_add)
            add(text_data.removeprefix("join "), self.channel_name)
        self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code: int) -> None:
        left.append(code)


@pytest.fixture(params=["direct", "behind a middleware", "sync"])
def limited(request: Any) -> Callable[[ClientLimits], Any]:
    """A consumer with these limits, under our server's door and without it, and a sync one."""

    def make(limits: ClientLimits) -> Any:
        base: Any = SyncEcho if request.param == "sync" else Echo
        limited: Any = type("Limited", (base,), {"client_limits": limits})
        consumer = limited.as_asgi()
        if request.param != "behind a middleware":
            return consumer

        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            async def own_receive() -> Any:
                return await receive()

            await consumer(scope, own_receive, send)

        return middleware

    return make


@asynccontextmanager
async def two_clients(application: Any) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        serving(application) as place,
        websockets.connect(f"ws://{place}/") as one,
        websockets.connect(f"ws://{place}/") as other,
    ):
        yield one, other


async def said_until_close(client: Any) -> list[str | bytes]:
    said = []
    async with asyncio.timeout(PATIENCE):
        with suppress(websockets.ConnectionClosedError):
            async for message in client:
                said.append(message)
    return said


async def is_served(client: Any) -> bool:
    await client.send("hello")
    return bool(await asyncio.wait_for(client.recv(), PATIENCE) == "hello")


async def test_messages_a_second(limited: Callable[[ClientLimits], Any]) -> None:
    before = counts.cut["message_rate"]
    async with two_clients(limited(ClientLimits(message_rate=1))) as (one, other):
        for number in range(20):
            await one.send(str(number))
        assert await said_until_close(one) == [str(number) for number in range(10)]
        assert one.close_code == 1008
        assert await is_served(other)
        assert left == [1008]
    assert counts.cut["message_rate"] == before + 1


async def test_bytes_a_second(limited: Callable[[ClientLimits], Any]) -> None:
    limits = ClientLimits(message_byte_rate=100, message_bytes=600)
    async with two_clients(limited(limits)) as (one, other):
        # Characters of three bytes: it is bytes that count.
        for _ in range(3):
            await one.send("\u20ac" * 150)
        assert len(await said_until_close(one)) == 2
        assert one.close_code == 1008
        assert await is_served(other)


async def test_the_size_of_a_message(limited: Callable[[ClientLimits], Any]) -> None:
    async with two_clients(limited(ClientLimits(message_bytes=30))) as (one, other):
        await one.send("\u20ac" * 10)
        await one.send(b"x" * 31)
        await one.send("never heard")
        assert await said_until_close(one) == ["\u20ac" * 10]
        assert one.close_code == 1009
        assert await is_served(other)


async def test_groups_of_a_connection(
    limited: Callable[[ClientLimits], Any], memory: InMemoryChannelLayer
) -> None:
    async with two_clients(limited(ClientLimits(groups=2))) as (one, other):
        for name in ("a", "b", "a", "c", "d"):
            await one.send(f"join {name}")
        assert await said_until_close(one) == ["join a", "join b", "join a"]
        assert one.close_code == 1008
        assert await is_served(other)
        assert left == [1008]
        assert memory.statistics()["refused_groups"] == 1


async def test_a_handler_may_answer_for_itself() -> None:
    class Told(Echo):
        client_limits = ClientLimits(groups=1)

        async def receive(
            self, text_data: str | None = None, bytes_data: bytes | None = None
        ) -> None:
            try:
                await super().receive(text_data, bytes_data)
            except ClientLimitExceeded as error:
                await self.send(text_data=str(error))

    async with two_clients(Told.as_asgi()) as (one, _):
        for name in ("a", "b"):
            await one.send(f"join {name}")
        assert await one.recv() == "join a"
        assert await one.recv() == "in 1 groups, asked for more"
        assert await is_served(one)


async def test_groups_of_the_class_are_groups_too() -> None:
    before = counts.cut["groups"]

    class Narrow(Echo):
        groups = ("a", "b")
        client_limits = ClientLimits(groups=1)

    async with serving(Narrow.as_asgi()) as place:
        with pytest.raises(websockets.InvalidStatus, match="403"):
            await websockets.connect(f"ws://{place}/").__aenter__()
    assert counts.cut["groups"] == before + 1


def test_mistakes_say_what_was_found() -> None:
    with pytest.raises(InvalidOption, match=r"message_rate.*0"):
        ClientLimits(message_rate=0)
    with pytest.raises(TypeError, match=r"Wrong.client_limits=5: expected a ClientLimits"):
        type("Wrong", (AsyncConsumer,), {"client_limits": 5})
