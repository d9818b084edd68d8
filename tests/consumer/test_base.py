"""What a consumer's handlers see: their order, their events, their end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from unittest import mock

import pytest
from django.core.signals import got_request_exception

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer, UnknownMessageType
from channels.kit.mailbox import MailboxBounds
from channels.kit.throttle import Throttle
from channels.kit.types import Message
from tests.consumer.stubs import ForeignLayer, ForeignServer, OurServer, StubLayer
from tests.server.shell import eventually

Server = type[ForeignServer]


class Echo(AsyncConsumer):
    """Says what it was told."""

    def __init__(self, greeting: str = "") -> None:
        super().__init__()
        self.greeting = greeting

    async def websocket_receive(self, event: dict[str, Any]) -> None:
        await self.send({"type": "websocket.send", "text": self.greeting + event["text"]})

    async def chat_message(self, event: dict[str, Any]) -> None:
        event["seen"] = True
        await self.send({"type": "websocket.send", "text": "layer: " + event["text"]})

    async def websocket_disconnect(self, event: dict[str, Any]) -> None:
        raise StopConsumer


async def test_as_asgi_makes_an_instance_for_each_connection(server: Server) -> None:
    made: list[AsyncConsumer] = []

    class Noted(Echo):
        """Is noted."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            made.append(self)

    application: Any = Noted.as_asgi(greeting="hello ")
    assert application.consumer_class is Noted
    assert application.consumer_initkwargs == {"greeting": "hello "}
    assert (application.__name__, application.__doc__) == ("Noted", "Is noted.")
    for _ in range(2):
        run = server(application)
        run.tell("websocket.receive", text="you")
        assert (await run.hear())["text"] == "hello you"
        run.tell("websocket.disconnect")
        await run.end()
    assert len(made) == 2
    assert made[0] is not made[1]


async def test_an_instance_is_an_application(server: Server) -> None:
    run = server(Echo("I say "))
    run.tell("websocket.receive", text="so")
    assert (await run.hear())["text"] == "I say so"
    await run.stop()


async def test_the_class_itself_is_an_application(server: Server) -> None:
    """As routes of Channels 2 name it, without as_asgi()."""
    run = server(Echo)
    run.tell("websocket.receive", text="so")
    assert (await run.hear())["text"] == "so"
    await run.stop()


async def test_the_two_steps_of_asgi_2(server: Server) -> None:
    class Old(AsyncConsumer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.path = self.scope["path"]

        async def websocket_receive(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.send", "text": self.path})

    async def two_steps(scope: Any, receive: Any, send: Any) -> None:
        await Old(scope)(receive, send)

    run = server(two_steps)
    run.tell("websocket.receive", text="")
    assert (await run.hear())["text"] == "/"
    await run.stop()


async def test_callables_that_return_futures_will_do() -> None:
    sent: list[Any] = []
    events = [{"type": "websocket.receive", "text": "a"}, {"type": "websocket.disconnect"}]

    def receive() -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(events.pop(0))
        return future

    def send(message: Any) -> asyncio.Future[None]:
        sent.append(message)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    await Echo.as_asgi()({"type": "websocket"}, receive, send)
    assert [each["text"] for each in sent] == ["a"]


async def test_client_events_are_handled_in_order_one_at_a_time(server: Server) -> None:
    log: list[str] = []

    class Slow(AsyncConsumer):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            log.append("begin " + event["text"])
            await asyncio.sleep(0)
            log.append("end " + event["text"])

        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            raise StopConsumer

    run = server(Slow)
    for text in "ab":
        run.tell("websocket.receive", text=text)
    run.tell("websocket.disconnect")
    await run.end()
    assert log == ["begin a", "end a", "begin b", "end b"]


@pytest.mark.parametrize("source", ["client", "layer"])
async def test_what_a_handler_starts_begins_before_the_next_handler(
    server: Server, layer: StubLayer, source: str
) -> None:
    class Starter(AsyncConsumer):
        async def start(self, event: Message) -> None:
            found.append(len(begun))
            tasks.append(asyncio.create_task(begin()))

    async def begin() -> None:
        begun.append(True)

    found: list[int] = []
    begun: list[bool] = []
    tasks: list[asyncio.Task[None]] = []
    run = server(Starter())
    await eventually(lambda: layer.members)
    for _ in range(40):
        if source == "client":
            run.tell("start")
        else:
            layer.put(layer.channel, {"type": "start"})
    await eventually(lambda: len(found) == 40)
    assert found == list(range(40))
    await run.stop()


async def test_without_a_layer_there_is_none(server: Server) -> None:
    consumer = Echo()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await run.hear()
    assert consumer.channel_layer is None
    assert not hasattr(consumer, "channel_name")
    await run.stop()


async def test_layer_events_reach_their_handlers(server: Server, layer: StubLayer) -> None:
    consumer = Echo()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await run.hear()
    assert consumer.channel_layer is layer
    event = {"type": "chat.message", "text": "b"}
    layer.put(consumer.channel_name, event)
    assert (await run.hear())["text"] == "layer: b"
    assert event == {"type": "chat.message", "text": "b"}, "a shared event is copied"
    run.tell("websocket.disconnect")
    await run.end()
    assert layer.members == {}


async def test_another_alias_is_another_layer(server: Server, layer: StubLayer) -> None:
    class Elsewhere(Echo):
        channel_layer_alias = "other"

    consumer = Elsewhere()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await run.hear()
    assert consumer.channel_layer is None
    await run.stop()


async def test_a_third_party_layer_is_received_from(
    server: Server, foreign_layer: ForeignLayer
) -> None:
    run = server(Echo())
    foreign_layer.queue.put_nowait({"type": "chat.message", "text": "a"})
    assert (await run.hear())["text"] == "layer: a"
    run.tell("websocket.disconnect")
    await run.end()
    assert foreign_layer.receivers == 0


async def test_a_consumer_has_the_means_to_read_its_channel(
    server: Server, foreign_layer: ForeignLayer
) -> None:
    consumer = Echo()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await run.hear()
    run.tell("websocket.disconnect")
    await run.end()
    assert consumer.channel_name == "foreign!1"
    foreign_layer.queue.put_nowait({"type": "chat.message"})
    assert await consumer.channel_receive() == {"type": "chat.message"}


async def test_an_instance_may_be_driven_by_hand() -> None:
    """Workers of some packages make a consumer and call `dispatch` themselves."""
    consumer = Echo()
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    consumer.base_send = send
    await consumer.dispatch({"type": "chat.message", "text": "a"})
    assert said == [{"type": "websocket.send", "text": "layer: a"}]


async def test_an_error_of_a_third_party_layer_is_outlived(
    server: Server,
    foreign_layer: ForeignLayer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("channels.consumer.line.RETRY_FIRST_SECONDS", 0.0)
    run = server(Echo())
    foreign_layer.queue.put_nowait(ConnectionError("the broker restarts"))
    foreign_layer.queue.put_nowait({"type": "chat.message", "text": "a"})
    assert (await run.hear())["text"] == "layer: a"
    assert "the broker restarts" in caplog.text
    await run.stop()
    assert foreign_layer.receivers == 0


@pytest.mark.parametrize("kind", ["send", "dispatch", "_secret", ".secret", "unheard.of"])
async def test_a_type_that_names_no_handler_ends_the_consumer(
    server: Server, layer: StubLayer, kind: str
) -> None:
    run = server(Echo())
    run.tell("websocket.receive", text="a")
    await run.hear()
    layer.put(layer.channel, {"type": kind})
    with pytest.raises(ValueError, match=r"not a handler|leading underscore|No handler"):
        await run.end()
    assert layer.members == {}


async def test_a_type_that_no_member_of_a_group_handles_is_one_line_in_the_log(
    server: Server,
    layer: StubLayer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("channels.consumer.handlers._throttle", Throttle(5.0))
    runs = [server(Echo()) for _ in range(50)]
    await eventually(lambda: len(layer.members) == 50)
    for channel in layer.members:
        layer.put(channel, {"type": "unheard.of." + "x" * 100_000})
    for run in runs:
        with pytest.raises(UnknownMessageType):
            await run.end()
    assert len(caplog.records) == 1
    assert len(caplog.text) < 500
    assert "Echo was ended by a message: No handler for message type unheard.of.xx" in caplog.text


async def test_an_error_is_logged_signalled_and_raised(
    server: Server, layer: StubLayer, caplog: pytest.LogCaptureFixture
) -> None:
    signals: list[Any] = []

    def receiver(sender: Any, request: Any, **kwargs: Any) -> None:
        signals.append((sender, request, kwargs["scope"]["path"]))

    class Broken(AsyncConsumer):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            raise LookupError("no such room")

    got_request_exception.connect(receiver)
    try:
        run = server(Broken)
        run.tell("websocket.receive", text="a")
        with pytest.raises(LookupError, match="no such room"):
            await run.end()
    finally:
        got_request_exception.disconnect(receiver)
    assert signals == [(Broken, None, "/")]
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.name == "django.channels"
    assert "Broken" in record.getMessage()
    assert "websocket.receive" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError
    assert layer.members == {}


async def test_a_failing_receive_is_raised_after_the_events_before_it() -> None:
    run = ForeignServer(Echo)
    run.tell("websocket.receive", text="a")
    run.events.put_nowait(OSError("the server broke"))
    assert (await run.hear())["text"] == "a"
    with pytest.raises(OSError, match="the server broke"):
        await run.end()


async def test_a_plain_method_is_no_handler_of_an_async_consumer(server: Server) -> None:
    class Mixed(AsyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None: ...

    run = server(Mixed)
    run.tell("websocket.receive", text="a")
    with pytest.raises(TypeError, match=r"Mixed\.websocket_receive is not a coroutine function"):
        await run.end()


async def test_a_consumer_ends_with_its_client(server: Server, layer: StubLayer) -> None:
    """Even if its disconnect handler does not raise StopConsumer: nothing can follow."""

    class Forgetful(AsyncConsumer):
        async def websocket_disconnect(self, event: dict[str, Any]) -> None: ...

    run = server(Forgetful)
    run.tell("websocket.disconnect")
    await run.end()
    assert layer.members == {}


async def test_a_groups_outbound_event_goes_to_the_client(server: Server, layer: StubLayer) -> None:
    run = server(Echo())
    run.tell("websocket.receive", text="a")
    await run.hear()
    layer.put(layer.channel, {"type": "websocket.send", "text": "b", "more": 1})
    assert await run.hear() == {"type": "websocket.send", "text": "b"}
    layer.put(layer.channel, {"type": "websocket.send", "text": None, "bytes": b"c"})
    assert await run.hear() == {"type": "websocket.send", "bytes": b"c"}
    await run.stop()


async def test_a_class_may_handle_outbound_events_itself(layer: StubLayer) -> None:
    class Looking(Echo):
        async def websocket_send(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.send", "text": "seen " + event["text"]})

    run = OurServer(Looking())
    run.tell("websocket.receive", text="a")
    await run.hear()
    assert layer.members[layer.channel].sink is None
    layer.put(layer.channel, {"type": "websocket.send", "text": "b"})
    assert (await run.hear())["text"] == "seen b"
    await run.stop()


@pytest.mark.parametrize("wraps_send", [False, True])
async def test_the_layer_gets_the_sink_unless_send_is_wrapped(
    layer: StubLayer, wraps_send: bool
) -> None:
    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def wrapped(message: Any) -> None:
            await send(message)

        await Echo()(scope, receive, wrapped if wraps_send else send)

    run = OurServer(middleware)
    run.tell("websocket.receive", text="a")
    await run.hear()
    assert layer.members[layer.channel].sink is (None if wraps_send else run.sink)
    await run.stop()


async def test_an_overridden_dispatch_sees_every_event(layer: StubLayer) -> None:
    class Looking(Echo):
        async def dispatch(self, message: Any) -> None:
            await self.send({"type": "seen", "what": message["type"]})
            await super().dispatch(message)

    run = OurServer(Looking())
    run.tell("websocket.receive", text="a")
    assert (await run.hear())["what"] == "websocket.receive"
    await run.hear()
    assert layer.members[layer.channel].sink is None
    await run.stop()


async def test_a_flood_closes_with_1013_where_the_class_says_so(
    server: Server, layer: StubLayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Narrow(Echo):
        mailbox_bounds = MailboxBounds(capacity=2, overflow="close")
        started = asyncio.Event()

        async def websocket_receive(self, event: dict[str, Any]) -> None:
            await super().websocket_receive(event)
            await asyncio.Event().wait()

        close_timeout = 0.0

    run = server(Narrow())
    run.tell("websocket.receive", text="a")
    await run.hear()
    for _ in range(5):
        layer.put(layer.channel, {"type": "chat.message", "text": "b"})
    assert await run.hear() == {"type": "websocket.close", "code": 1013}
    run.tell("websocket.disconnect", code=1013)
    await run.end()
    assert run.sent.empty(), "nothing is said after the close"
    assert len([each for each in caplog.records if "1013" in each.getMessage()]) == 1


async def test_a_session_that_a_handler_changed_is_saved(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []

    async def save(scope: Any) -> None:
        saved.append(scope["session"])

    monkeypatch.setattr("channels.consumer.base.save_if_modified", save)
    run = server(Echo(), {"type": "websocket", "path": "/", "session": "mine"})
    run.tell("websocket.receive", text="a")
    run.tell("websocket.disconnect")
    await run.end()
    assert saved == ["mine", "mine"], "after each handler, the last one too"


async def test_connections_that_the_last_handler_left_open_are_closed(server: Server) -> None:
    closed: list[str] = []

    class Last(AsyncConsumer):
        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            closed.append("handled")
            raise StopConsumer

    async def close_left_open() -> None:
        closed.append("closed")

    with mock.patch("channels.consumer.base.close_left_open", close_left_open):
        run = server(Last)
        run.tell("websocket.disconnect", code=1000)
        await run.end()
    # Those that other tests have left open in this process may be closed before.
    assert closed[closed.index("handled") :] == ["handled", "closed"]


async def test_a_consumer_that_is_the_whole_application_leaves_lifespan_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def receive() -> Message:
        pytest.fail("it asked, so what it raises would be told as a failure to start")

    async def send(message: Message) -> None:
        pytest.fail("nothing is said")

    with pytest.raises(ValueError, match="Echo takes no part in lifespan"):
        await Echo.as_asgi()({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert not caplog.records


async def test_a_consumer_may_take_part_in_lifespan() -> None:
    class Starting(Echo):
        async def lifespan_startup(self, event: Message) -> None:
            await self.send({"type": "lifespan.startup.complete"})
            raise StopConsumer

    run = ForeignServer(Starting(), {"type": "lifespan", "asgi": {"version": "3.0"}})
    run.tell("lifespan.startup")
    assert await run.hear() == {"type": "lifespan.startup.complete"}
    await run.end()
