"""WebSocket consumers of both kinds: the same said, the same heard, whichever way they wait."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync

from channels.consumer import AsyncConsumer
from channels.exceptions import (
    AcceptConnection,
    DenyConnection,
    InvalidChannelLayerError,
    StopConsumer,
)
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.testing import WebsocketCommunicator
from tests.consumer.stubs import DrivingServer, ForeignServer, OurServer

Kind = type[Any]


@pytest.fixture
def memory() -> InMemoryChannelLayer:
    layer = InMemoryChannelLayer()
    channel_layers.backends["default"] = layer
    return layer


def pair(*classes: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("consumer", classes, ids=["sync", "async"][: len(classes)])


class SyncLog(WebsocketConsumer):
    log: ClassVar[list[Any]]

    def connect(self) -> None:
        self.log.append("connect")
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append((text_data, bytes_data))
        self.send(text_data=text_data, bytes_data=bytes_data)

    def disconnect(self, code: int) -> None:
        self.log.append(code)

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send(event["text"])


class AsyncLog(AsyncWebsocketConsumer):
    log: ClassVar[list[Any]]

    async def connect(self) -> None:
        self.log.append("connect")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append((text_data, bytes_data))
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        self.log.append(code)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])


@pair(SyncLog, AsyncLog)
@pytest.mark.parametrize("as_instance", [False, True])
async def test_connect_receive_disconnect(consumer: Kind, as_instance: bool) -> None:
    log: list[Any] = []
    consumer.log = log
    application = consumer() if as_instance else consumer.as_asgi()
    communicator = WebsocketCommunicator(application, "/testws/")
    assert await communicator.connect() == (True, None)
    await communicator.send_to(text_data="hello")
    assert await communicator.receive_from() == "hello"
    await communicator.send_to(bytes_data=b"w\0\0\0")
    assert await communicator.receive_from() == b"w\0\0\0"
    await communicator.disconnect(4002)
    assert log == ["connect", ("hello", None), (None, b"w\0\0\0"), 4002]


@pair(SyncLog, AsyncLog)
async def test_a_text_of_none_beside_bytes_is_absent(consumer: Kind) -> None:
    """As hypercorn sends them."""
    log: list[Any] = []
    consumer.log = log
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_input({"type": "websocket.receive", "text": None, "bytes": b"a"})
    assert await communicator.receive_from() == b"a"
    await communicator.disconnect()
    assert log[1] == (None, b"a")


@pair(SyncLog, AsyncLog)
async def test_an_empty_text_is_a_text(consumer: Kind) -> None:
    log: list[Any] = []
    consumer.log = log
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_input({"type": "websocket.receive", "text": ""})
    assert await communicator.receive_from() == ""
    await communicator.disconnect()
    assert log == ["connect", ("", None), 1000]


async def test_the_handler_of_the_clients_going_ends_the_consumer() -> None:
    """Also where a subclass calls it from a handler of its own."""
    with pytest.raises(StopConsumer):
        await AsyncWebsocketConsumer().websocket_disconnect({"code": 1000})
    with pytest.raises(StopConsumer):
        WebsocketConsumer().websocket_disconnect({"code": 1000})


@pair(WebsocketConsumer, AsyncWebsocketConsumer)
async def test_by_default_a_connection_is_accepted(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    assert await communicator.connect() == (True, None)
    await communicator.disconnect()


class SyncChosen(WebsocketConsumer):
    def connect(self) -> None:
        assert self.scope["subprotocols"] == ["a", "b"]
        self.accept("b", headers=[(b"x-seen", b"yes")])


class AsyncChosen(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        assert self.scope["subprotocols"] == ["a", "b"]
        await self.accept("b", headers=[(b"x-seen", b"yes")])


@pair(SyncChosen, AsyncChosen)
async def test_accept_names_a_subprotocol_and_headers(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/", subprotocols=["a", "b"])
    assert await communicator.connect() == (True, "b")
    assert communicator.response_headers == [(b"x-seen", b"yes")]
    await communicator.disconnect()


@pair(WebsocketConsumer, AsyncWebsocketConsumer)
async def test_accept_without_headers_says_nothing_of_them(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.send_input({"type": "websocket.connect"})
    assert await communicator.receive_output() == {"type": "websocket.accept", "subprotocol": None}
    await communicator.disconnect()


class SyncRaising(WebsocketConsumer):
    def connect(self) -> None:
        raise {b"accept": AcceptConnection, b"deny": DenyConnection}[self.scope["query_string"]]


class AsyncRaising(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        raise {b"accept": AcceptConnection, b"deny": DenyConnection}[self.scope["query_string"]]


@pair(SyncRaising, AsyncRaising)
@pytest.mark.parametrize(("query", "answer"), [("accept", (True, None)), ("deny", (False, 1000))])
async def test_connect_may_raise_its_answer(
    consumer: Kind, query: str, answer: tuple[bool, Any]
) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), f"/?{query}")
    assert await communicator.connect() == answer
    await communicator.disconnect()


class SyncClosing(WebsocketConsumer):
    def connect(self) -> None:
        self.close(code=4001, reason="not you")


class AsyncClosing(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close(code=4001, reason="not you")


@pair(SyncClosing, AsyncClosing)
async def test_close_with_code_and_reason(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.send_input({"type": "websocket.connect"})
    assert await communicator.receive_output() == {
        "type": "websocket.close",
        "code": 4001,
        "reason": "not you",
    }
    await communicator.disconnect()


class SyncMute(WebsocketConsumer):
    def connect(self) -> None:
        self.close(code=4001, reason="")


class AsyncMute(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close(code=4001, reason="")


@pair(SyncMute, AsyncMute)
async def test_an_empty_reason_is_none(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.send_input({"type": "websocket.connect"})
    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4001}
    await communicator.disconnect()


class SyncSilent(WebsocketConsumer):
    def connect(self) -> None: ...

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.accept()


class AsyncSilent(AsyncWebsocketConsumer):
    async def connect(self) -> None: ...

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.accept()


@pair(SyncSilent, AsyncSilent)
async def test_a_connect_that_answers_nothing_refuses(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    assert await communicator.connect() == (False, 1000)
    assert await communicator.receive_nothing(0.01)
    await communicator.disconnect()


@pair(SyncSilent, AsyncSilent)
async def test_accept_later_leaves_the_answer_to_another_handler(consumer: Kind) -> None:
    class Later(consumer):  # type: ignore[misc]
        accept_later = True

    communicator = WebsocketCommunicator(Later.as_asgi(), "/")
    await communicator.send_input({"type": "websocket.connect"})
    assert await communicator.receive_nothing(0.02)
    await communicator.send_to(text_data="now")
    assert (await communicator.receive_output())["type"] == "websocket.accept"
    await communicator.disconnect()


@pytest.mark.parametrize("server", [ForeignServer, OurServer, DrivingServer])
@pytest.mark.parametrize("answers", [True, False])
async def test_a_task_that_connect_leaves_behind_may_answer(
    server: type[ForeignServer], answers: bool
) -> None:
    """As GraphQL packages do it: all of the conversation is one task's affair."""
    go = asyncio.Event()

    class Conversing(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.tasks = {asyncio.create_task(self.converse())}

        async def converse(self) -> None:
            await go.wait()
            if answers:
                await self.accept()
                await self.send("hello")

    run = server(Conversing())
    run.tell("websocket.connect")
    for _ in range(10):
        await asyncio.sleep(0)
    assert run.sent.empty()
    go.set()
    if answers:
        assert (await run.hear())["type"] == "websocket.accept"
        assert (await run.hear())["text"] == "hello"
    else:
        assert await run.hear() == {"type": "websocket.close"}
    run.tell("websocket.disconnect", code=1000)
    await run.end()
    assert run.sent.empty()


async def test_a_task_that_has_ended_answers_nothing() -> None:
    class Hasty(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.task = asyncio.create_task(asyncio.sleep(0))
            await self.task

    communicator = WebsocketCommunicator(Hasty.as_asgi(), "/")
    assert await communicator.connect() == (False, 1000)
    await communicator.disconnect()


@pytest.mark.parametrize("server", [ForeignServer, OurServer, DrivingServer])
async def test_what_is_said_in_another_loop_leaves_in_the_servers(
    server: type[ForeignServer],
) -> None:
    """Some packages have a loop and a thread of their own for what they have to say."""

    class Elsewhere(AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await asyncio.to_thread(asyncio.run, self.converse(text_data))

        async def converse(self, text: str) -> None:
            await self.send(text)
            await self.close(4001)

    said: list[tuple[int, Message]] = []
    run = server(Elsewhere())
    put = run.send

    async def send(message: Message) -> None:
        said.append((threading.get_ident(), message))
        await put(message)

    run.send = send  # type: ignore[method-assign]
    run.tell("websocket.connect")
    run.tell("websocket.receive", text="hello")
    for _ in range(3):
        await run.hear()
    assert said[1:] == [
        (threading.get_ident(), {"type": "websocket.send", "text": "hello"}),
        (threading.get_ident(), {"type": "websocket.close", "code": 4001}),
    ]
    await run.stop()


async def test_a_consumer_that_a_test_has_made_says_through_the_base_send_it_was_given() -> None:
    """Unit tests of projects call handlers on an instance that no server serves."""
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    consumer = AsyncJsonWebsocketConsumer()
    consumer.scope, consumer.base_send = {"type": "websocket"}, send
    await consumer.accept()
    await consumer.send_json({"a": 1})
    await consumer.receive("{}")
    await consumer.close(4000)

    plain = JsonWebsocketConsumer()
    plain.scope, plain.base_send = {"type": "websocket"}, said.append
    plain.accept()
    plain.send_json({"a": 1})
    plain.close(4000)
    assert said[:3] == said[3:]
    assert [message["type"] for message in said[:3]] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]


async def test_an_answer_past_our_verbs_is_an_answer() -> None:
    """A denial response, for example, which has no verb here."""

    class Denying(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.base_send({"type": "websocket.http.response.start", "status": 429})
            await self.base_send({"type": "websocket.http.response.body", "body": b""})

    communicator = WebsocketCommunicator(Denying.as_asgi(), "/")
    assert await communicator.connect() == (False, 429)
    assert await communicator.receive_nothing(0.01)
    await communicator.disconnect()


class SyncSaying(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(**json.loads(text_data or ""))


class AsyncSaying(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(**json.loads(text_data or ""))


@pair(SyncSaying, AsyncSaying)
@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        ({"text_data": ""}, [{"type": "websocket.send", "text": ""}]),
        ({"text_data": "a", "bytes_data": "b"}, [{"type": "websocket.send", "text": "a"}]),
        (
            {"text_data": "a", "close": True},
            [{"type": "websocket.send", "text": "a"}, {"type": "websocket.close"}],
        ),
        (
            {"text_data": "a", "close": 4000},
            [{"type": "websocket.send", "text": "a"}, {"type": "websocket.close", "code": 4000}],
        ),
    ],
    ids=str,
)
async def test_what_send_says(
    consumer: Kind, arguments: dict[str, Any], events: list[dict[str, Any]]
) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_json_to(arguments)
    for event in events:
        assert await communicator.receive_output() == event
    await communicator.disconnect()


@pair(SyncSaying, AsyncSaying)
async def test_a_send_of_nothing_is_an_error(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_json_to({})
    with pytest.raises(ValueError, match="You must pass one of bytes_data or text_data"):
        await communicator.wait()


@pair(SyncLog, AsyncLog)
async def test_each_connection_has_a_scope_of_its_own(consumer: Kind) -> None:
    consumer.log = []
    made: list[Any] = []

    class Noted(consumer):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    application = Noted.as_asgi()
    both = [WebsocketCommunicator(application, f"/{name}/") for name in "ab"]
    for communicator in both:
        assert await communicator.connect() == (True, None)
    assert [each.scope["path"] for each in made] == ["/a/", "/b/"]
    for communicator in both:
        await communicator.disconnect()


@pair(SyncLog, AsyncLog)
async def test_groups_of_the_class(consumer: Kind, memory: InMemoryChannelLayer) -> None:
    class Grouped(consumer):  # type: ignore[misc]
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    Grouped.log = []
    communicator = WebsocketCommunicator(Grouped.as_asgi(), "/")
    await communicator.connect()
    (channel,) = memory.groups["chat"]
    assert list(memory.channels) == [channel], "a waiting consumer's channel is there to be found"
    await memory.group_send("chat", {"type": "chat.message", "text": "hello"})
    assert await communicator.receive_from() == "hello"
    await memory.send(channel, {"type": "chat.message", "text": "you"})
    assert await communicator.receive_from() == "you"
    await communicator.disconnect()
    assert "chat" not in memory.groups
    assert list(memory.channels) == []


@pair(WebsocketConsumer, AsyncWebsocketConsumer)
async def test_groups_without_a_layer_are_an_error(consumer: Kind) -> None:
    class Grouped(consumer):  # type: ignore[misc]
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    communicator = WebsocketCommunicator(Grouped.as_asgi(), "/")
    with pytest.raises(
        InvalidChannelLayerError, match="BACKEND is unconfigured or doesn't support groups"
    ):
        await communicator.connect()


def test_without_groups_there_is_a_list_of_them() -> None:
    assert WebsocketConsumer().groups == []
    assert AsyncWebsocketConsumer().groups == []


@pair(SyncLog, AsyncLog)
async def test_another_layer_by_its_alias(consumer: Kind, memory: InMemoryChannelLayer) -> None:
    other = channel_layers.backends["other"] = InMemoryChannelLayer()

    class Elsewhere(consumer):  # type: ignore[misc]
        channel_layer_alias = "other"
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    Elsewhere.log = []
    communicator = WebsocketCommunicator(Elsewhere.as_asgi(), "/")
    await communicator.connect()
    await memory.group_send("chat", {"type": "chat.message", "text": "not heard"})
    await other.group_send("chat", {"type": "chat.message", "text": "heard"})
    assert await communicator.receive_from() == "heard"
    await communicator.disconnect()


class SyncChat(WebsocketConsumer):
    """The tutorial's."""

    def connect(self) -> None:
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
        self.accept()

    def disconnect(self, code: int) -> None:
        async_to_sync(self.channel_layer.group_discard)("room", self.channel_name)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        async_to_sync(self.channel_layer.group_send)(
            "room", {"type": "chat_message", "message": text_data}
        )

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["message"])


class AsyncChat(AsyncWebsocketConsumer):
    """The tutorial's."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("room", {"type": "chat_message", "message": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["message"])


@pair(SyncChat, AsyncChat)
async def test_the_tutorials_chat(consumer: Kind, memory: InMemoryChannelLayer) -> None:
    windows = [WebsocketCommunicator(consumer.as_asgi(), "/ws/chat/lobby/") for _ in range(3)]
    for window in windows:
        assert await window.connect() == (True, None)
    for number in range(3):
        await windows[number].send_to(text_data=f"message {number}")
        for window in windows:
            assert await window.receive_from() == f"message {number}"
    for window in windows:
        await window.disconnect()
    assert not memory.groups


@pair(SyncChat, AsyncChat)
async def test_a_groups_outbound_event_reaches_the_client(
    consumer: Kind, memory: InMemoryChannelLayer
) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await memory.group_send("room", {"type": "websocket.send", "text": "for all"})
    assert await communicator.receive_from() == "for all"
    await communicator.disconnect()


@pair(SyncClosing, AsyncClosing)
async def test_a_closed_consumer_passes_nothing_on(
    consumer: Kind, memory: InMemoryChannelLayer
) -> None:
    class Grouped(consumer):  # type: ignore[misc]
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    communicator = WebsocketCommunicator(Grouped.as_asgi(), "/")
    assert await communicator.connect() == (False, 4001)
    await memory.group_send("chat", {"type": "websocket.send", "text": "too late"})
    assert await communicator.receive_nothing(0.02)
    await communicator.disconnect()


@pair(SyncLog, AsyncLog)
@pytest.mark.parametrize("kind", ["_private_method", ".private.method"])
async def test_a_private_type_from_the_layer_is_refused(
    consumer: Kind, memory: InMemoryChannelLayer, kind: str
) -> None:
    consumer.log = []
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await memory.send(next(iter(memory.channels)), {"type": kind})
    with pytest.raises(ValueError, match=r"Malformed type in message \(leading underscore\)"):
        await communicator.wait()


@pair(SyncLog, AsyncLog)
@pytest.mark.parametrize("kind", ["close", "send", "accept", "receive", "websocket_close"])
async def test_a_verb_from_the_layer_is_refused(
    consumer: Kind, memory: InMemoryChannelLayer, kind: str
) -> None:
    consumer.log = []
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await memory.send(next(iter(memory.channels)), {"type": kind})
    with pytest.raises(ValueError, match=r"not a handler|No handler"):
        await communicator.wait()


class SyncFailing(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise LookupError("no such room")


class AsyncFailing(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        raise LookupError("no such room")


ways_out = pytest.mark.parametrize("way_out", ["error", "cancelled", "client"])


async def come_and_go(consumer: Kind, way_out: str) -> None:
    class Grouped(consumer):  # type: ignore[misc]
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    communicator = WebsocketCommunicator(Grouped.as_asgi(), "/")
    await communicator.connect()
    if way_out == "error":
        await communicator.send_to(text_data="a")
        with pytest.raises(LookupError):
            await communicator.wait()
    elif way_out == "cancelled":
        communicator.stop()
        await asyncio.wait([communicator.future])
    else:
        await communicator.disconnect()


@pair(SyncFailing, AsyncFailing)
@ways_out
async def test_every_way_out_leaves_the_groups(
    consumer: Kind, memory: InMemoryChannelLayer, way_out: str
) -> None:
    await come_and_go(consumer, way_out)
    assert "chat" not in memory.groups
    assert list(memory.channels) == []


class GroupsElsewhere:
    """A third-party layer: nothing to attach to, so its groups must be left one by one."""

    def __init__(self) -> None:
        self.members: set[tuple[str, str]] = set()
        self.joined: set[tuple[str, str]] = set()
        self.fails = False

    async def new_channel(self, prefix: str = "specific") -> str:
        return "specific.elsewhere!1"

    async def receive(self, channel: str) -> Any:
        await asyncio.Event().wait()

    async def group_add(self, group: str, channel: str) -> None:
        self.members.add((group, channel))
        self.joined.add((group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        if self.fails:
            raise ConnectionError("the broker is away")
        self.members.discard((group, channel))


@pair(SyncFailing, AsyncFailing)
@ways_out
async def test_every_way_out_leaves_a_third_partys_groups(consumer: Kind, way_out: str) -> None:
    layer = GroupsElsewhere()
    channel_layers.backends["default"] = layer  # type: ignore[assignment]
    await come_and_go(consumer, way_out)
    assert layer.joined == {("chat", "specific.elsewhere!1")}
    assert layer.members == set()


@pytest.mark.parametrize("way_out", ["cancelled", "client"])
async def test_groups_that_a_consumer_adds_to_its_own_are_left_too(way_out: str) -> None:
    layer = GroupsElsewhere()
    channel_layers.backends["default"] = layer  # type: ignore[assignment]

    class Subscribing(AsyncWebsocketConsumer):
        groups: Iterable[str] | None = ("all",)

        async def connect(self) -> None:
            await self.channel_layer.group_add("mine", self.channel_name)
            self.groups = {*(self.groups or ()), "mine"}
            await self.accept()

    communicator = WebsocketCommunicator(Subscribing.as_asgi(), "/")
    await communicator.connect()
    assert {group for group, _ in layer.members} == {"all", "mine"}
    if way_out == "client":
        await communicator.disconnect()
    else:
        communicator.stop()
        await asyncio.wait([communicator.future])
    assert layer.members == set()


@pair(SyncFailing, AsyncFailing)
async def test_a_layer_that_cannot_be_left_is_logged(
    consumer: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    layer = GroupsElsewhere()
    layer.fails = True
    channel_layers.backends["default"] = layer  # type: ignore[assignment]
    await come_and_go(consumer, "cancelled")
    assert "could not leave its groups" in caplog.text
    assert "the broker is away" in caplog.text


@pair(SyncLog, AsyncLog)
async def test_a_connection_that_has_ended_is_freed_without_the_garbage_collector(
    consumer: Kind, memory: InMemoryChannelLayer
) -> None:
    class Grouped(consumer):  # type: ignore[misc]
        groups = ["chat"]  # noqa: RUF012 - as projects write it

    Grouped.log = []
    instance = Grouped()
    loop, freed = asyncio.get_running_loop(), asyncio.Event()
    # Called by whoever lets go last, which may be a thread of the pool.
    watched = weakref.ref(instance, lambda _: loop.call_soon_threadsafe(freed.set))
    gc.collect()
    gc.disable()
    try:
        run = OurServer(instance)
        run.tell("websocket.connect")
        await run.hear()
        run.tell("websocket.disconnect", code=1000)
        await run.end()
        del instance, run
        await asyncio.wait_for(freed.wait(), 10)
        assert watched() is None
    finally:
        gc.enable()


class SyncJson(JsonWebsocketConsumer):
    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json(content, close=content == "end")


class AsyncJson(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json(content, close=content == "end")


@pair(SyncJson, AsyncJson)
async def test_json_both_ways(consumer: Kind) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_json_to({"hello": ["world", None]})
    assert await communicator.receive_json_from() == {"hello": ["world", None]}
    await communicator.send_json_to("end")
    assert await communicator.receive_json_from() == "end"
    assert await communicator.receive_output() == {"type": "websocket.close"}
    await communicator.disconnect()


@pair(SyncJson, AsyncJson)
@pytest.mark.parametrize("message", [{"bytes_data": b"{}"}, {"text_data": ""}], ids=str)
async def test_json_is_text(consumer: Kind, message: dict[str, Any]) -> None:
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    await communicator.connect()
    await communicator.send_to(**message)
    with pytest.raises(ValueError, match="No text section for incoming WebSocket frame!"):
        await communicator.wait()


async def test_what_a_subclass_adds_to_receive_reaches_receive_json() -> None:
    class Sync(JsonWebsocketConsumer):
        def receive(self, text_data: Any = None, bytes_data: Any = None, **kwargs: Any) -> None:
            super().receive(text_data, bytes_data, room="lobby", **kwargs)

        def receive_json(self, content: Any, **kwargs: Any) -> None:
            self.send_json([content, kwargs])

    class Async(AsyncJsonWebsocketConsumer):
        async def receive(
            self, text_data: Any = None, bytes_data: Any = None, **kwargs: Any
        ) -> None:
            await super().receive(text_data, bytes_data, room="lobby", **kwargs)

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json([content, kwargs])

    for consumer in (Sync, Async):
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_json_to(1)
        assert await communicator.receive_json_from() == [1, {"room": "lobby"}]
        await communicator.disconnect()


async def test_another_encoding_of_json() -> None:
    class Sync(SyncJson):
        @classmethod
        def encode_json(cls, content: Any) -> str:
            return f"<{content}>"

        @classmethod
        def decode_json(cls, text_data: str) -> Any:
            return text_data.upper()

    class Async(AsyncJson):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            return f"<{content}>"

        @classmethod
        async def decode_json(cls, text_data: str) -> Any:
            return text_data.upper()

    for consumer in (Sync, Async):
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
        await communicator.connect()
        await communicator.send_to(text_data="a")
        assert await communicator.receive_from() == "<A>"
        await communicator.disconnect()


class Spy(AsyncConsumer):
    """Stands below the generic class and sees every event that is said."""

    said: list[Message]

    async def send(self, message: Message) -> None:
        self.said.append(message)
        await super().send(message)


class Echo(AsyncWebsocketConsumer):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[Any] = []

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)


class EchoWithSpyBelow(Echo, Spy):  # type: ignore[misc]  # text above, events below
    pass


class EchoThatSays(Echo):
    async def send(self, *args: Any, **kwargs: Any) -> None:
        self.said.append(args)
        await super().send(*args, **kwargs)


class EchoThatDispatches(Echo):
    async def dispatch(self, message: Message) -> None:
        if message["type"] == "websocket.receive":
            self.said.append(message)
        await super().dispatch(message)


class EchoThatReceives(Echo):
    async def websocket_receive(self, message: Message) -> None:
        self.said.append(message)
        await super().websocket_receive(message)


class EchoWithItsOwnWay(Echo):
    """Some projects put a function of their own in place of `base_send`."""

    async def connect(self) -> None:
        await self.accept()
        server = self.base_send

        async def send(message: Message) -> None:
            self.said.append(message)
            await server(message)

        self.base_send = send


@pytest.mark.parametrize("server", [ForeignServer, OurServer, DrivingServer])
@pytest.mark.parametrize(
    "kind",
    [EchoWithSpyBelow, EchoThatSays, EchoThatDispatches, EchoThatReceives, EchoWithItsOwnWay],
)
async def test_what_a_subclass_puts_in_the_way_is_asked(
    kind: type[Echo], server: type[ForeignServer]
) -> None:
    """Also under a server that spares the plain cases a step."""
    consumer = kind()
    run = server(consumer)
    run.tell("websocket.connect")
    assert (await run.hear())["type"] == "websocket.accept"
    consumer.said.clear()
    for _ in range(2):
        run.tell("websocket.receive", text="a")
        assert await run.hear() == {"type": "websocket.send", "text": "a"}
    assert len(consumer.said) == 2
    await run.stop()
