"""Several consumers that share one connection, as behind a demultiplexer."""

from __future__ import annotations

import asyncio
import functools
from typing import Any
from unittest import mock

import pytest

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.testing import WebsocketCommunicator


class AsyncChild(AsyncWebsocketConsumer):
    accept = mock.AsyncMock()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"child heard {text_data}")


class SyncChild(WebsocketConsumer):
    accept = mock.Mock()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=f"child heard {text_data}")


def parent_of(child: Any, *, accepts: bool) -> Any:
    class Parent(AsyncWebsocketConsumer):
        async def __call__(self, scope: Any, receive: Any, send: Any = None) -> None:
            self.letters: asyncio.Queue[Any] = asyncio.Queue()
            await asyncio.gather(
                child()(scope, self.letters.get, send), super().__call__(scope, receive, send)
            )

        async def websocket_connect(self, message: Any) -> None:
            if accepts:
                await self.accept()
            await self.letters.put(message)

        async def websocket_receive(self, message: Any) -> None:
            await self.letters.put(message)

        async def websocket_disconnect(self, message: Any) -> None:
            await self.letters.put(message)
            await super().websocket_disconnect(message)

    return Parent


@pytest.mark.parametrize("child", [AsyncChild, SyncChild])
async def test_one_that_says_nothing_leaves_the_connection_that_another_accepted(
    child: Any,
) -> None:
    client = WebsocketCommunicator(parent_of(child, accepts=True).as_asgi(), "/")
    assert (await client.connect())[0]
    await client.send_to(text_data="a")
    assert await client.receive_from() == "child heard a"
    await client.disconnect()


@pytest.mark.parametrize("child", [AsyncChild, SyncChild])
async def test_where_nobody_accepts_it_is_refused(child: Any) -> None:
    client = WebsocketCommunicator(parent_of(child, accepts=False).as_asgi(), "/")
    assert not (await client.connect())[0]
    await client.disconnect()


has_been_silent = asyncio.Event()


class Demultiplexer(AsyncWebsocketConsumer):
    """Hears what its children send, and accepts when one of them does."""

    async def __call__(self, scope: Any, receive: Any, send: Any = None) -> None:
        self.queues = {child: asyncio.Queue[Any]() for child in (SilentChild, LateChild)}
        children = (
            child()(scope, queue.get, functools.partial(self.from_child, child.__name__))
            for child, queue in self.queues.items()
        )
        await asyncio.gather(super().__call__(scope, receive, send), *children)

    async def websocket_connect(self, message: Any) -> None:
        self.accept_later = True
        for queue in self.queues.values():
            await queue.put(message)

    async def websocket_receive(self, message: Any) -> None:
        for queue in self.queues.values():
            await queue.put(message)

    async def websocket_disconnect(self, message: Any) -> None:
        await self.websocket_receive(message)
        await super().websocket_disconnect(message)

    async def from_child(self, name: str, message: Any) -> None:
        if message["type"] == "websocket.accept":
            await self.accept()
        elif message["type"] == "websocket.close":
            await self.close()
        else:
            await self.send(text_data=f"{name}: {message['text']}")


class SilentChild(AsyncWebsocketConsumer):
    async def websocket_connect(self, message: Any) -> None:
        await super().websocket_connect(message)
        has_been_silent.set()

    async def connect(self) -> None:
        pass

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"heard {text_data}")


class LateChild(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await has_been_silent.wait()
        await self.accept()


async def test_one_behind_a_demultiplexer_refuses_nothing_by_silence() -> None:
    client = WebsocketCommunicator(Demultiplexer.as_asgi(), "/")
    assert (await client.connect())[0]
    await client.send_to(text_data="a")
    assert await client.receive_from() == "SilentChild: heard a"
    await client.disconnect()
