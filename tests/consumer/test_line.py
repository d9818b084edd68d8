"""A client that has gone is noticed, whatever its consumer is doing; every way out is clean."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from tests.consumer.stubs import ForeignLayer, ForeignServer, OurServer, StubLayer

Server = type[ForeignServer]


class Busy(AsyncConsumer):
    """Its receive handler never ends by itself."""

    close_timeout: float | None = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def websocket_receive(self, event: dict[str, Any]) -> None:
        await self.send({"type": "websocket.send", "text": "busy"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    async def websocket_disconnect(self, event: dict[str, Any]) -> None:
        self.log.append(f"disconnect {event['code']}")
        raise StopConsumer


async def busy(server: Server, consumer: AsyncConsumer) -> ForeignServer:
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    assert (await run.hear())["text"] == "busy"
    return run


async def test_a_handler_is_cancelled_and_disconnect_still_runs(
    server: Server, layer: StubLayer, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Busy()
    run = await busy(server, consumer)
    run.tell("websocket.receive", text="never handled")
    run.tell("websocket.disconnect", code=1001)
    await run.end()
    assert consumer.log == ["cancelled", "disconnect 1001"]
    assert not run.task.cancelled()
    assert layer.members == {}
    assert "'websocket.receive' still runs; it is cancelled" in caplog.text


async def test_a_handler_that_ends_in_time_is_left_alone(server: Server) -> None:
    class Patient(Busy):
        close_timeout = 60.0

        async def websocket_receive(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.send", "text": "busy"})
            await go.wait()
            self.log.append("ended")

    go = asyncio.Event()
    consumer = Patient()
    run = await busy(server, consumer)
    run.tell("websocket.disconnect", code=1000)
    await asyncio.sleep(0)
    go.set()
    await run.end()
    assert consumer.log == ["ended", "disconnect 1000"]


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(
    server: Server,
) -> None:
    class Stubborn(Busy):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            try:
                await super().websocket_receive(event)
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    consumer = Stubborn()
    run = await busy(server, consumer)
    run.tell("websocket.disconnect", code=1000)
    await run.end()
    assert consumer.log == ["cancelled", "disconnect 1000"]


async def test_a_disconnect_handler_that_hangs_is_cut_off_too(
    server: Server, layer: StubLayer
) -> None:
    class Hanging(Busy):
        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            self.log.append("disconnect")
            await asyncio.Event().wait()

    consumer = Hanging()
    run = server(consumer)
    run.tell("websocket.disconnect", code=1000)
    await run.end()
    assert consumer.log == ["disconnect"]
    assert layer.members == {}


async def test_without_a_timeout_a_handler_has_all_the_time(server: Server) -> None:
    class Endless(Busy):
        close_timeout = None

    consumer = Endless()
    run = await busy(server, consumer)
    run.tell("websocket.disconnect", code=1000)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not run.task.done()
    await run.stop()
    assert consumer.log == ["cancelled"]


async def test_the_servers_own_cancellation_is_obeyed(server: Server, layer: StubLayer) -> None:
    consumer = Busy()
    run = await busy(server, consumer)
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert consumer.log == ["cancelled"], "the client is still there: no disconnect"
    assert layer.members == {}


async def test_a_send_to_a_client_that_has_gone_is_no_error(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """ASGI 2.4: the server raises OSError from send()."""

    class Talking(Busy):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            self.base_send = gone
            await self.send({"type": "websocket.send", "text": "into the void"})

    async def gone(message: Any) -> None:
        raise BrokenPipeError("gone")

    consumer = Talking()
    run = server(consumer)
    run.tell("websocket.receive", text="a")
    await asyncio.sleep(0)
    run.tell("websocket.disconnect", code=1006)
    await run.end()
    assert consumer.log == ["disconnect 1006"]
    assert caplog.records == []


async def test_an_oserror_of_the_handlers_own_is_an_error(server: Server) -> None:
    class Reading(Busy):
        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            raise FileNotFoundError("the log is gone")

    run = server(Reading())
    run.tell("websocket.disconnect", code=1000)
    with pytest.raises(FileNotFoundError):
        await run.end()


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_await_nothing_is_left(
    server: Server, layer: StubLayer, turns: int
) -> None:
    """From before the channel is opened to after the disconnect handler."""

    class Polite(AsyncConsumer):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            await self.send({"type": "websocket.send", "text": "a"})

        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            await asyncio.sleep(0)
            raise StopConsumer

    before = asyncio.all_tasks()
    run = server(Polite)
    run.tell("websocket.receive", text="a")
    run.tell("websocket.disconnect", code=1000)
    for _ in range(turns):
        await asyncio.sleep(0)
    await run.stop()
    assert layer.members == {}
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_at_any_await_a_third_party_layer_is_let_go(
    foreign_layer: ForeignLayer, turns: int
) -> None:
    run = ForeignServer(Busy())
    run.tell("websocket.receive", text="a")
    for _ in range(turns):
        await asyncio.sleep(0)
    await run.stop()
    assert foreign_layer.receivers == 0


async def test_under_our_server_a_consumer_is_one_task(layer: StubLayer) -> None:
    before = asyncio.all_tasks()
    run = await busy(OurServer, Busy())
    assert asyncio.all_tasks() - before == {run.task}
    await run.stop()


async def test_our_mailbox_is_given_back(layer: StubLayer) -> None:
    run = OurServer(Busy())
    run.tell("websocket.disconnect", code=1000)
    await run.end()
    assert run.mailbox.on_gone is None
    assert run.mailbox.on_overflow is None


async def test_a_foreign_server_is_not_read_ahead_without_bound() -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "websocket.receive", "text": "x"}

    async def send(message: Any) -> None: ...

    class Stuck(Busy):
        async def websocket_receive(self, event: dict[str, Any]) -> None:
            await asyncio.Event().wait()

    task = asyncio.create_task(Stuck()({"type": "websocket"}, receive, send))
    for _ in range(100):
        await asyncio.sleep(0)
    assert read < 50
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_workers_messages_are_taken_one_at_a_time() -> None:
    """What waits in the consumer is lost if the worker dies, so nothing waits there."""
    handled, asked = [], 0
    go = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "do", "number": asked}

    class Worker(AsyncConsumer):
        async def do(self, event: dict[str, Any]) -> None:
            handled.append(event["number"])
            await go.wait()
            if event["number"] == 3:
                raise StopConsumer

    async def send(message: Any) -> None: ...

    task = asyncio.create_task(Worker()({"type": "channel", "channel": "x"}, receive, send))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (handled, asked) == ([1], 1)
    go.set()
    await task
    assert (handled, asked) == ([1, 2, 3], 3)


async def test_a_blocking_handler_is_waited_for(server: Server) -> None:
    """A thread cannot be cancelled, and two handlers of one connection never run at once."""

    class Blocking(SyncConsumer):
        close_timeout = None
        go = threading.Event()

        def __init__(self) -> None:
            super().__init__()
            self.log: list[str] = []

        def websocket_receive(self, event: dict[str, Any]) -> None:
            self.send({"type": "websocket.send", "text": "busy"})
            self.go.wait(10)
            self.log.append("ended")

        def websocket_disconnect(self, event: dict[str, Any]) -> None:
            self.log.append("disconnect")
            raise StopConsumer

    consumer = Blocking()
    run = await busy(server, consumer)
    run.tell("websocket.disconnect", code=1000)
    consumer._line._cut()
    for _ in range(20):
        await asyncio.sleep(0)
    assert consumer.log == []
    consumer.go.set()
    await run.end()
    assert consumer.log == ["ended", "disconnect"]


@pytest.mark.parametrize("kind", [AsyncConsumer, SyncConsumer])
async def test_a_consumer_that_has_ended_is_freed_without_the_garbage_collector(
    server: Server, layer: StubLayer, kind: type[AsyncConsumer]
) -> None:
    """Thousands of reconnects between two collections would otherwise be held in memory."""

    async def listen(self: Any, event: dict[str, Any]) -> None:
        await self.send({"type": "websocket.send", "text": "heard"})

    def listen_on_a_thread(self: Any, event: dict[str, Any]) -> None:
        self.send({"type": "websocket.send", "text": "heard"})

    async def leave(self: Any, event: dict[str, Any]) -> None:
        raise StopConsumer

    def leave_on_a_thread(self: Any, event: dict[str, Any]) -> None:
        raise StopConsumer

    handlers = (listen_on_a_thread, leave_on_a_thread) if kind._sync else (listen, leave)
    names = ("websocket_receive", "websocket_disconnect")
    consumer = type("Listener", (kind,), dict(zip(names, handlers, strict=True)))()
    loop, freed = asyncio.get_running_loop(), asyncio.Event()
    # Called by whoever lets go last, which may be a thread of the pool.
    watched = weakref.ref(consumer, lambda _: loop.call_soon_threadsafe(freed.set))
    gc.collect()
    gc.disable()
    try:
        run = server(consumer)
        run.tell("websocket.receive", text="a")
        await run.hear()
        run.tell("websocket.disconnect", code=1000)
        await run.end()
        del consumer, run
        await asyncio.wait_for(freed.wait(), 10)
        assert watched() is None
    finally:
        gc.enable()
