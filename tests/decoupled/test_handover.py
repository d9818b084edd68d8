"""A connection goes on in another worker: with its state, its groups, and nothing lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.kit.throttle import Throttle
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer, channel_layers
from tests.decoupled.house import house
from tests.server.shell import dial, eventually, serve, text

pytestmark = pytest.mark.usefixtures("link")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    """What the edge, the workers and the consumers have in common."""
    memory = InMemoryChannelLayer()
    monkeypatch.setattr(channel_layers, "backends", {"default": memory})
    return memory


#: Codes with which a consumer was told disconnect.
left: list[int] = []


class Counting(AsyncWebsocketConsumer):
    state_fields = ("count", "room")
    count = 0

    async def connect(self) -> None:
        self.room = f"room-{self.scope['path'].strip('/')}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def resumed(self) -> None:
        await self.send(f"resumed at {self.count}")

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.count += 1
        await self.send(f"{text_data} {self.count}")

    async def said(self, message: Message) -> None:
        await self.send(f"said {message['what']}")

    async def disconnect(self, code: int) -> None:
        left.append(code)


class SyncCounting(WebsocketConsumer):
    count = 0

    def get_state(self) -> dict[str, Any]:
        return {"n": self.count}

    def set_state(self, state: Any) -> None:
        self.count = state["n"]

    def resumed(self) -> None:
        self.send(f"resumed at {self.count}")

    def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        self.count += 1
        self.send(f"{text_data} {self.count}")


@pytest.mark.parametrize("consumer", [Counting, SyncCounting])
async def test_a_consumer_goes_on_with_its_state(
    layer: InMemoryChannelLayer, consumer: Any
) -> None:
    left.clear()
    async with house(layer=layer) as here:
        first = await here.start_worker(consumer)
        async with dial(here.shell) as client:
            client.send(text("a"), text("b"))
            assert await client.read_frame() == (0x81, b"a 1")
            assert await client.read_frame() == (0x81, b"b 2")
            second = await here.start_worker(consumer)
            await here.stop_worker(first)
            assert await client.read_frame() == (0x81, b"resumed at 2")
            client.send(text("c"))
            assert await client.read_frame() == (0x81, b"c 3")
            assert second.statistics()["connections"] == 1
            if consumer is Counting:
                await layer.group_send("room-", {"type": "said", "what": "hello"})
                assert await client.read_frame() == (0x81, b"said hello")
            assert left == []


async def test_events_and_messages_that_wait_are_handled_once_and_in_order(
    layer: InMemoryChannelLayer,
) -> None:
    go, entered = asyncio.Event(), asyncio.Event()

    class Slow(AsyncWebsocketConsumer):
        state_fields = ("count",)
        count = 0

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            entered.set()
            await go.wait()
            self.count += 1
            await self.send(f"{text_data} {self.count}")

        async def said(self, message: Message) -> None:
            await self.send("said")

    async with house(layer=layer) as here:
        first = await here.start_worker(Slow)
        async with dial(here.shell) as client:
            client.send(*(text(f"{n}") for n in range(100)))
            await entered.wait()
            (connection,) = first._connections.values()
            channel = next(
                name for name in layer.node.local.hub.channels if name.startswith("specific")
            )
            for _ in range(5):
                await layer.send(channel, {"type": "said"})
            assert connection.mailbox.layer_size == 5
            await here.start_worker(Slow)
            stopping = asyncio.create_task(here.stop_worker(first))
            await eventually(lambda: connection._is_releasing)
            go.set()
            await stopping
            got = [await client.read_frame() for _ in range(105)]
    texts = [frame[1].decode() for frame in got if frame is not None]
    assert texts[:6] == ["0 1", *["said"] * 5], "by the old worker: nobody else has them"
    del texts[1:6]
    assert texts == [f"{n} {n + 1}" for n in range(100)]


async def test_while_no_worker_lives_the_client_waits(layer: InMemoryChannelLayer) -> None:
    class Kept(AsyncWebsocketConsumer):
        state_fields = ("x",)

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(text_data)

    async with house(layer=layer, unacknowledged_events=8) as here:
        worker = await here.start_worker(Kept)
        async with dial(here.shell) as client:
            await here.stop_worker(worker)
            client.send(*(text(f"{n}") for n in range(50)))
            await here.until(unacknowledged=8, offered=1)
            await here.start_worker(Kept)
            for n in range(50):
                assert await client.read_frame() == (0x81, b"%d" % n)


async def test_a_client_that_goes_meanwhile_is_taken_leave_of(
    layer: InMemoryChannelLayer,
) -> None:
    codes = list[tuple[int, int]]()

    class Kept(AsyncWebsocketConsumer):
        state_fields = ("count",)
        count = 0

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            self.count += 1
            await self.send("counted")

        async def disconnect(self, code: int) -> None:
            codes.append((code, self.count))

    async with house(layer=layer) as here:
        worker = await here.start_worker(Kept)
        async with dial(here.shell) as client:
            client.send(text("x"))
            await client.read_frame()
            await here.stop_worker(worker)
        await here.until(departed=1, offered=1)
        await here.start_worker(Kept)
        await here.until(connections=0, departed=0)
        await eventually(lambda: codes)
    assert codes == [(1006, 1)]


async def test_a_connection_that_no_worker_takes_is_closed_with_1012(
    layer: InMemoryChannelLayer,
) -> None:
    async with house(layer=layer, resume_timeout=0.1) as here:
        worker = await here.start_worker(_kept())
        async with dial(here.shell) as client:
            await here.stop_worker(worker)
            assert await client.read_close() == 1012
        await here.until(connections=0, offered=0)


def _kept(**more: Any) -> Any:
    return type("Kept", (AsyncWebsocketConsumer,), {"state_fields": ("x",), **more})


@pytest.mark.parametrize("x", [object(), b"x" * 2000])
async def test_state_that_cannot_be_carried_leaves_the_consumer_where_it_is(
    layer: InMemoryChannelLayer, x: Any, caplog: pytest.LogCaptureFixture
) -> None:
    go, entered = asyncio.Event(), asyncio.Event()

    async def receive(self: Any, text_data: Any = None, bytes_data: Any = None) -> None:
        entered.set()
        await go.wait()
        await self.send(text_data)

    async with house(layer=layer) as here:
        worker = await here.start_worker(_kept(x=x, receive=receive), max_state_bytes=1024)
        async with dial(here.shell) as client:
            client.send(*(text(f"{n}") for n in range(20)))
            await entered.wait()
            stopping = asyncio.create_task(here.stop_worker(worker))
            (connection,) = worker._connections.values()
            await eventually(lambda: connection._is_releasing)
            go.set()
            for n in range(20):
                assert await client.read_frame() == (0x81, b"%d" % n)
            assert "cannot be handed over" in caplog.text
            client.send(text("still here"))
            assert await client.read_frame() == (0x81, b"still here")
        await stopping


async def test_a_release_whose_code_keeps_no_state_any_more_lets_the_client_come_again(
    layer: InMemoryChannelLayer,
) -> None:
    async with house(layer=layer) as here:
        worker = await here.start_worker(_kept())
        async with dial(here.shell) as client:
            await here.stop_worker(worker)
            await here.start_worker(AsyncWebsocketConsumer)
            assert await client.read_close() == 1012


@pytest.mark.parametrize("kind", ["websocket.release", "websocket.resume"])
async def test_what_a_worker_says_to_its_consumer_nobody_else_can_say(
    layer: InMemoryChannelLayer,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("channels.consumer.handlers._throttle", Throttle(5.0))
    async with house(layer=layer) as here:
        await here.start_worker(_kept(groups=("room",)))
        async with dial(here.shell) as client:
            await layer.group_send("room", {"type": kind, "placement": None, "state": {}})
            assert await client.read_close() == 1011
        assert here.edge.statistics().get("handed_over", 0) == 0
    assert "is said by a worker alone" in caplog.text


async def test_an_edge_group_goes_on_while_no_worker_lives(layer: InMemoryChannelLayer) -> None:
    class Watching(AsyncWebsocketConsumer):
        state_fields = ("x",)

        async def connect(self) -> None:
            await self.channel_layer.group_add("news", self.socket_channel)
            await self.accept()

    async with house(layer=layer) as here:
        worker = await here.start_worker(Watching)
        async with dial(here.shell) as client:
            await layer.group_send("news", {"type": "websocket.send", "text": "one"})
            assert await client.read_frame() == (0x81, b"one")
            await here.stop_worker(worker)
            await layer.group_send("news", {"type": "websocket.send", "text": "two"})
            assert await client.read_frame() == (0x81, b"two")
            await layer.group_send("news", {"type": "chat.message", "text": "no consumer"})
            await here.until(socket_messages_dropped=1)
            await layer.group_send("news", {"type": "websocket.close", "code": 4003})
            assert await client.read_close() == 4003
        await eventually(lambda: "news" not in layer.node.local.hub.groups)


def test_an_unknown_crash_rule_is_named_when_the_class_is_made() -> None:
    with pytest.raises(ValueError, match="expected one of close, redeliver, drop"):
        _kept(on_crash="explode")


async def test_under_a_server_the_socket_s_channel_is_the_consumer_s(
    layer: InMemoryChannelLayer,
) -> None:
    class Watching(AsyncWebsocketConsumer):
        state_fields = ("x",)

        async def connect(self) -> None:
            await self.channel_layer.group_add("news", self.socket_channel)
            await self.accept()

    async with serve(Watching.as_asgi()) as shell, dial(shell) as client:
        await layer.group_send("news", {"type": "websocket.send", "text": "one"})
        assert await client.read_frame() == (0x81, b"one")
