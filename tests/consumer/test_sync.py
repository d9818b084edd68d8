"""Sync handlers: in parallel between connections, in order within one."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from channels.consumer import SyncConsumer
from channels.db import keeps_connections
from channels.exceptions import ClientDisconnected, StopConsumer
from tests.consumer.stubs import ForeignServer, StubLayer

Server = type[ForeignServer]


class Echo(SyncConsumer):
    def websocket_receive(self, event: dict[str, Any]) -> None:
        self.send({"type": "websocket.send", "text": event["text"]})

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send({"type": "websocket.send", "text": "layer: " + event["text"]})

    def websocket_disconnect(self, event: dict[str, Any]) -> None:
        raise StopConsumer


async def test_handlers_run_on_threads_in_order(server: Server, layer: StubLayer) -> None:
    run = server(Echo)
    for text in "abc":
        run.tell("websocket.receive", text=text)
    assert [(await run.hear())["text"] for _ in "abc"] == ["a", "b", "c"]
    layer.put(layer.channel, {"type": "chat.message", "text": "d"})
    assert (await run.hear())["text"] == "layer: d"
    layer.put(layer.channel, {"type": "websocket.send", "text": "e"})
    assert (await run.hear())["text"] == "e"
    run.tell("websocket.disconnect")
    await run.end()
    assert layer.members == {}


async def test_connections_are_served_in_parallel(server: Server) -> None:
    meeting = threading.Barrier(3)

    class Meeting(SyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            meeting.wait(10)
            raise StopConsumer

    runs = [server(Meeting) for _ in range(3)]
    for run in runs:
        run.tell("websocket.receive", text="")
    for run in runs:
        await run.end()


async def test_async_to_sync_runs_on_the_consumers_loop(server: Server, layer: StubLayer) -> None:
    loops: list[Any] = []

    async def note() -> None:
        loops.append(asyncio.get_running_loop())

    class Grouped(Echo):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            async_to_sync(note)()
            async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
            async_to_sync(self.channel_layer.group_send)(
                "room", {"type": "chat.message", "text": event["text"]}
            )

    run = server(Grouped)
    run.tell("websocket.receive", text="a")
    assert (await run.hear())["text"] == "layer: a"
    assert loops == [asyncio.get_running_loop()]
    await run.stop()


@pytest.mark.filterwarnings("error")
async def test_a_send_that_is_a_plain_function_will_do() -> None:
    sent: list[Any] = []
    events = [{"type": "websocket.receive", "text": "a"}, {"type": "websocket.disconnect"}]

    async def receive() -> Any:
        return events.pop(0)

    def send(message: Any) -> asyncio.Future[None]:
        sent.append(message)
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    await Echo.as_asgi()({"type": "websocket"}, receive, send)
    assert [each["text"] for each in sent] == ["a"]


async def test_connections_of_the_thread_are_swept_round_a_handler(server: Server) -> None:
    swept: list[int] = []
    handled: list[int] = []

    class Here(SyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            handled.append(threading.get_ident())
            raise StopConsumer

    def sweep() -> None:
        swept.append(threading.get_ident())

    with mock.patch("channels.db.close_old_connections", sweep):
        run = server(Here)
        run.tell("websocket.receive", text="")
        await run.end()
    assert swept == handled * 2
    assert handled != [threading.get_ident()]


async def test_inside_a_test_handlers_run_where_its_connection_is(server: Server) -> None:
    keeps_connections.set(True)
    handled: list[int] = []

    class Here(SyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            handled.append(threading.get_ident())
            raise StopConsumer

    with mock.patch("channels.db.close_old_connections") as swept:
        run = server(Here)
        run.tell("websocket.receive", text="")
        await run.end()
    assert handled == [await sync_to_async(threading.get_ident)()]
    swept.assert_not_called()


async def test_an_error_of_a_handler_is_raised(server: Server) -> None:
    class Broken(SyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            raise LookupError("no such room")

    run = server(Broken)
    run.tell("websocket.receive", text="")
    with pytest.raises(LookupError, match="no such room"):
        await run.end()


async def test_a_coroutine_is_no_handler_of_a_sync_consumer(server: Server) -> None:
    class Mixed(SyncConsumer):
        async def websocket_receive(self, event: dict[str, Any]) -> None: ...

    run = server(Mixed)
    run.tell("websocket.receive", text="")
    with pytest.raises(TypeError, match=r"Mixed\.websocket_receive is a coroutine function"):
        await run.end()


async def test_what_a_handler_waits_for_is_cancelled_with_it(server: Server) -> None:
    log: list[str] = []
    waits = asyncio.Event()

    class Waiting(Echo):
        close_timeout = None

        def websocket_receive(self, event: dict[str, Any]) -> None:
            async_to_sync(self.wait_for_ever)()

        async def wait_for_ever(self) -> None:
            waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        def websocket_disconnect(self, event: dict[str, Any]) -> None:
            log.append("disconnect")
            raise StopConsumer

    consumer = Waiting()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await waits.wait()
    run.tell("websocket.disconnect")
    await asyncio.sleep(0)
    consumer._line._cut()
    await run.end()
    assert log == ["cancelled", "disconnect"]


async def test_a_wait_that_begins_after_the_cancellation_is_cancelled_by_the_next(
    server: Server,
) -> None:
    waits, go = asyncio.Event(), threading.Event()

    class Waiting(Echo):
        close_timeout = None

        def websocket_receive(self, event: dict[str, Any]) -> None:
            super().websocket_receive(event)
            go.wait(10)
            async_to_sync(self.wait_for_ever)()

        async def wait_for_ever(self) -> None:
            waits.set()
            await asyncio.Event().wait()

    consumer = Waiting()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await run.hear()
    run.tell("websocket.disconnect")
    await asyncio.sleep(0)
    consumer._line._cut()
    await asyncio.sleep(0)
    go.set()
    await waits.wait()
    consumer._line._cut()
    await run.end()


async def test_a_send_that_fails_fails_in_the_handler(server: Server) -> None:
    caught: list[Exception] = []

    class Talking(SyncConsumer):
        def websocket_receive(self, event: dict[str, Any]) -> None:
            try:
                self.send({"type": "websocket.send", "text": "a"})
            except ClientDisconnected as error:
                caught.append(error)
            raise StopConsumer

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def gone(message: Any) -> None:
            raise BrokenPipeError("gone")

        await Talking()(scope, receive, gone)

    run = server(application)
    run.tell("websocket.receive", text="")
    await run.end()
    assert [str(error) for error in caught] == ["gone"]
