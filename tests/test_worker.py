"""Messages of named channels reach their consumers: in parallel, in bounds, and to the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import ChannelLayerUnavailable, InvalidOption, StopConsumer
from channels.kit.throttle import Throttle
from channels.kit.types import Message, Scope
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.routing import ChannelNameRouter
from channels.testing.layers.base import until
from channels.worker import Worker, WorkerOptions


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    memory = InMemoryChannelLayer()
    monkeypatch.setattr(channel_layers, "backends", {"default": memory})
    return memory


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """The worker at work; afterwards it is stopped and has left no task."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(worker.handle())
    try:
        yield task
    finally:
        worker.request_stop()
        await asyncio.wait_for(task, 10)
        assert asyncio.all_tasks() == before


class Desk:
    """What handlers tell the test, and when they may go on."""

    def __init__(self) -> None:
        self.handled: asyncio.Queue[Any] = asyncio.Queue()
        self.go = asyncio.Event()

    async def next(self) -> Any:
        return await asyncio.wait_for(self.handled.get(), 10)


def consumer_of(desk: Desk) -> Any:
    class Job(AsyncConsumer):
        async def job(self, message: Message) -> None:
            desk.handled.put_nowait(("began", message["n"], self.scope["channel"]))
            await desk.go.wait()
            desk.handled.put_nowait(("ended", message["n"], id(self)))

        async def fail(self, message: Message) -> None:
            raise LookupError("a bad message")

        async def stop(self, message: Message) -> None:
            raise StopConsumer

    return Job


async def test_each_channel_has_its_consumer(layer: InMemoryChannelLayer) -> None:
    one, two = Desk(), Desk()
    router = ChannelNameRouter({"one": consumer_of(one).as_asgi(), "two": consumer_of(two)})
    async with working(Worker(router, ["one", "two"], layer)):
        await layer.send("one", {"type": "job", "n": 1})
        await layer.send("two", {"type": "job", "n": 2})
        assert await one.next() == ("began", 1, "one")
        assert await two.next() == ("began", 2, "two")
        one.go.set()
        two.go.set()


async def test_handlers_of_a_channel_run_in_parallel_up_to_the_limit(
    layer: InMemoryChannelLayer,
) -> None:
    desk = Desk()
    worker = Worker(consumer_of(desk), ["jobs"], layer, options=WorkerOptions(parallel=3))
    async with working(worker):
        for n in range(5):
            await layer.send("jobs", {"type": "job", "n": n})
        assert [(await desk.next())[1] for _ in range(3)] == [0, 1, 2]
        for _ in range(20):
            await asyncio.sleep(0)
        assert desk.handled.empty()
        desk.go.set()
        rest = [await desk.next() for _ in range(7)]
        assert sorted(n for what, n, _ in rest if what == "ended") == [0, 1, 2, 3, 4]


async def test_what_the_worker_has_no_hand_free_for_stays_for_others(
    layer: InMemoryChannelLayer,
) -> None:
    desk = Desk()
    worker = Worker(consumer_of(desk), ["jobs"], layer, options=WorkerOptions(parallel=1))
    async with working(worker):
        for n in range(2):
            await layer.send("jobs", {"type": "job", "n": n})
        await desk.next()
        assert (await asyncio.wait_for(layer.receive("jobs"), 10))["n"] == 1
        desk.go.set()


async def test_one_instance_keeps_order(layer: InMemoryChannelLayer) -> None:
    desk = Desk()
    desk.go.set()
    worker = Worker(consumer_of(desk), ["jobs"], layer, options=WorkerOptions(parallel=1))
    async with working(worker):
        for n in range(4):
            await layer.send("jobs", {"type": "job", "n": n})
        ended = [await desk.next() for _ in range(8)][1::2]
    assert [n for _, n, _ in ended] == [0, 1, 2, 3]
    assert len({instance for _, _, instance in ended}) == 1


async def test_sync_consumers_run_in_parallel(layer: InMemoryChannelLayer) -> None:
    meeting, handled = threading.Barrier(3), asyncio.Queue[int]()

    class Job(SyncConsumer):
        def job(self, message: Message) -> None:
            meeting.wait(10)
            async_to_sync(handled.put)(message["n"])

    async with working(Worker(Job.as_asgi(), ["jobs"], layer)):
        for n in range(3):
            await layer.send("jobs", {"type": "job", "n": n})
        assert sorted([await asyncio.wait_for(handled.get(), 10) for _ in range(3)]) == [0, 1, 2]


async def test_an_application_need_not_be_a_consumer(layer: InMemoryChannelLayer) -> None:
    handled: asyncio.Queue[Any] = asyncio.Queue()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        handled.put_nowait((scope, await receive()))

    async with working(Worker(application, ["jobs"], layer)):
        for n in range(2):
            await layer.send("jobs", {"type": "job", "n": n})
            scope, message = await asyncio.wait_for(handled.get(), 10)
            assert scope == {"type": "channel", "channel": "jobs"}
            assert message == {"type": "job", "n": n}


@pytest.mark.parametrize("bad", [{"n": 1}, {"type": "fail"}, {"type": "unheard.of"}])
async def test_a_bad_message_is_logged_and_the_next_is_handled(
    layer: InMemoryChannelLayer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    bad: Message,
) -> None:
    monkeypatch.setattr("channels.consumer.handlers._throttle", Throttle(5.0))
    desk = Desk()
    desk.go.set()
    async with working(Worker(consumer_of(desk), ["jobs"], layer)):
        await layer.send("jobs", bad)
        await layer.send("jobs", {"type": "job", "n": 2})
        assert (await desk.next())[1] == 2
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


async def test_a_consumer_that_stops_makes_way_for_a_new_one(layer: InMemoryChannelLayer) -> None:
    desk = Desk()
    desk.go.set()
    worker = Worker(consumer_of(desk), ["jobs"], layer, options=WorkerOptions(parallel=1))
    async with working(worker):
        for message in ({"type": "stop"}, {"type": "job", "n": 1}):
            await layer.send("jobs", message)
        assert (await desk.next())[1] == 1


async def test_errors_of_the_layer_are_outlived(
    layer: InMemoryChannelLayer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("channels.worker.RETRY_FIRST_SECONDS", 0.0)
    receive, failures = layer.receive, [ChannelLayerUnavailable("restarting"), OSError("reset")]

    async def failing(channel: str) -> Message:
        if failures:
            raise failures.pop(0)
        return await receive(channel)

    monkeypatch.setattr(layer, "receive", failing)
    desk = Desk()
    desk.go.set()
    async with working(Worker(consumer_of(desk), ["jobs"], layer)):
        await layer.send("jobs", {"type": "job", "n": 1})
        assert (await desk.next())[1] == 1
    assert "restarting" in caplog.text


async def test_idle_instances_make_room_within_max_applications(
    layer: InMemoryChannelLayer,
) -> None:
    desk = Desk()
    desk.go.set()
    names = ["a", "b", "c"]
    async with working(Worker(consumer_of(desk), names, layer, max_applications=1)):
        for channel in [*names, *names]:
            await layer.send(channel, {"type": "job", "n": 1})
            assert (await desk.next())[2] == channel
            await desk.next()


async def test_stop_lets_running_handlers_end(layer: InMemoryChannelLayer) -> None:
    desk = Desk()
    worker = Worker(consumer_of(desk), ["jobs"], layer)
    async with working(worker) as task:
        await layer.send("jobs", {"type": "job", "n": 1})
        await desk.next()
        worker.request_stop()
        for _ in range(10):
            await asyncio.sleep(0)
        await layer.send("jobs", {"type": "job", "n": 2})
        assert not task.done()
        desk.go.set()
        assert (await desk.next())[:2] == ("ended", 1)
        await task
    assert (await layer.receive("jobs"))["n"] == 2, "nothing is taken after the stop"


async def test_what_does_not_end_in_time_is_cancelled(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    options = WorkerOptions(shutdown_timeout=0.0)
    worker = Worker(consumer_of(desk), ["jobs"], layer, options=options)
    async with working(worker):
        await layer.send("jobs", {"type": "job", "n": 1})
        await desk.next()
    assert "1 handlers still run" in caplog.text
    assert desk.handled.empty()


@pytest.mark.parametrize("turns", range(10))
async def test_cancelled_at_any_await_nothing_is_left(
    layer: InMemoryChannelLayer, turns: int
) -> None:
    before = asyncio.all_tasks()
    desk = Desk()
    task = asyncio.create_task(Worker(consumer_of(desk), ["jobs"], layer).handle())
    await layer.send("jobs", {"type": "job", "n": 1})
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_a_consumer_that_sends_to_nobody_is_told(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    sent = asyncio.Event()

    class Sending(AsyncConsumer):
        async def job(self, message: Message) -> None:
            sent.set()
            await self.send({"type": "websocket.send"})

    async with working(Worker(Sending, ["jobs"], layer)):
        await layer.send("jobs", {"type": "job"})
        await asyncio.wait_for(sent.wait(), 10)
    assert "a worker has no client" in caplog.text


async def test_an_application_that_fails_is_logged(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    received = asyncio.Queue[str]()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.put_nowait((await receive())["type"])
        raise LookupError("a bad job")

    async with working(Worker(application, ["jobs"], layer)):
        await layer.send("jobs", {"type": "job"})
        await asyncio.wait_for(received.get(), 10)
    assert "a bad job" in caplog.text


async def test_an_application_of_two_steps(layer: InMemoryChannelLayer) -> None:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    class TwoSteps:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            seen.put_nowait((self.scope, await receive()))

    async with working(Worker(TwoSteps, ["jobs"], layer)):
        await layer.send("jobs", {"type": "job"})
        scope, message = await asyncio.wait_for(seen.get(), 10)
    assert (scope, message) == ({"type": "channel", "channel": "jobs"}, {"type": "job"})


def test_a_channel_named_twice_is_listened_to_once(layer: InMemoryChannelLayer) -> None:
    assert Worker(consumer_of(Desk()), ["b", "a", "b"], layer).channels == ["b", "a"]


async def test_a_name_that_cannot_be_received_from(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(TypeError, match="Channel name must be"):
        await Worker(consumer_of(Desk()), ["no spaces"], layer).handle()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="Channel layer is not valid"):
        Worker(consumer_of(Desk()), ["jobs"], None)
    with pytest.raises(ValueError, match="max_applications=0: the least is 1"):
        Worker(consumer_of(Desk()), ["jobs"], object(), max_applications=0)
    with pytest.raises(InvalidOption, match="the least is 1"):
        WorkerOptions(parallel=0)


def run_until(signals: int, options: WorkerOptions, layer: InMemoryChannelLayer) -> list[Any]:
    """Run a worker whose one job signals this process, and return what the job did."""
    log: list[Any] = []

    class Job(AsyncConsumer):
        async def job(self, message: Message) -> None:
            try:
                for _ in range(signals):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.01)
                if signals > 1:
                    await asyncio.Event().wait()
                log.append("ended")
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

    async def send() -> None:
        await layer.send("jobs", {"type": "job"})

    asyncio.run(send())
    Worker(Job, ["jobs"], layer, options=options).run()
    return log


def test_sigterm_finishes_what_runs(layer: InMemoryChannelLayer) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_until(1, WorkerOptions(), layer) == ["ended"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_does_not_wait(layer: InMemoryChannelLayer) -> None:
    assert run_until(2, WorkerOptions(shutdown_timeout=None), layer) == ["cancelled"]


AT_LEAST_ONCE = {"jobs": {"max_attempts": 3, "retry_delay": 0.0, "dead_letter": "dead"}}


@pytest.fixture
def leasing(monkeypatch: pytest.MonkeyPatch) -> InMemoryChannelLayer:
    memory = InMemoryChannelLayer(delivery=AT_LEAST_ONCE)
    monkeypatch.setattr(channel_layers, "backends", {"default": memory})
    return memory


def leased(layer: InMemoryChannelLayer) -> int:
    return layer.statistics()["transport_leased"]


async def test_a_message_is_acknowledged_when_its_handler_has_returned(
    leasing: InMemoryChannelLayer,
) -> None:
    desk = Desk()
    async with working(Worker(consumer_of(desk), ["jobs"], leasing)):
        await leasing.send("jobs", {"type": "job", "n": 1})
        await desk.next()
        assert leased(leasing) == 1
        desk.go.set()
        await desk.next()
        await until(lambda: not leased(leasing), "the acknowledgement")
        assert leasing.statistics()["acknowledged"] == 1
    assert "jobs" not in leasing.channels


async def test_what_fails_is_tried_again_and_goes_to_the_dead_letters(
    leasing: InMemoryChannelLayer,
) -> None:
    desk, attempts = Desk(), list[int]()

    class Job(AsyncConsumer):
        async def job(self, message: Message) -> None:
            attempts.append(self.scope["lease"].attempts)
            raise LookupError("a bad message")

    class DeadLetters(AsyncConsumer):
        async def dead_letter(self, message: Message) -> None:
            desk.handled.put_nowait(message)

    router = ChannelNameRouter({"jobs": Job, "dead": DeadLetters})
    async with working(Worker(router, ["jobs", "dead"], leasing)):
        await leasing.send("jobs", {"type": "job", "n": 1})
        letter = await desk.next()
    assert attempts == [1, 2, 3]
    assert letter["message"] == {"type": "job", "n": 1}
    assert letter["reason"] == "LookupError: a bad message"


@pytest.mark.parametrize("parallel", [1, 3])
async def test_the_sync_handler_of_a_lease(leasing: InMemoryChannelLayer, parallel: int) -> None:
    done: set[int] = set()

    class Job(SyncConsumer):
        def job(self, message: Message) -> None:
            if message["n"] % 3 == 0 and self.scope["lease"].attempts == 1:
                raise LookupError("try again")
            done.add(message["n"])

    async with working(Worker(Job, ["jobs"], leasing, options=WorkerOptions(parallel=parallel))):
        for n in range(30):
            await leasing.send("jobs", {"type": "job", "n": n})
        counters = leasing.node.counters
        await until(lambda: counters["acknowledged"] == 30, "all handlers")
    assert done == set(range(30))


async def test_what_a_stop_cancels_is_given_back(leasing: InMemoryChannelLayer) -> None:
    desk = Desk()
    options = WorkerOptions(shutdown_timeout=0.0)
    async with working(Worker(consumer_of(desk), ["jobs"], leasing, options=options)):
        await leasing.send("jobs", {"type": "job", "n": 1})
        await desk.next()
    message, lease = await asyncio.wait_for(leasing.receive_leased("jobs"), 10)
    assert (message["n"], lease.attempts) == (1, 1), "a stop is no attempt of the message's"


async def test_a_message_that_no_consumer_can_take(leasing: InMemoryChannelLayer) -> None:
    desk = Desk()
    async with working(Worker(consumer_of(desk), ["jobs"], leasing)):
        await leasing.send("jobs", {"n": 1})
        assert (await leasing.receive("dead"))["reason"] == "it has no type"
        await leasing.send("jobs", {"type": "unheard.of"})
        letter = await asyncio.wait_for(leasing.receive("dead"), 10)
        assert letter["message"] == {"type": "unheard.of"}


async def test_a_word_that_does_not_arrive_is_not_waited_for(
    leasing: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    desk.go.set()
    transport: Any = leasing.node.transport
    real = transport.acknowledge

    async def fail(queue: str, token: bytes) -> bool:
        monkeypatch.setattr(transport, "acknowledge", real)
        raise ChannelLayerUnavailable("not now")

    monkeypatch.setattr(transport, "acknowledge", fail)
    options = WorkerOptions(parallel=1)
    async with working(Worker(consumer_of(desk), ["jobs"], leasing, options=options)):
        for n in range(2):
            await leasing.send("jobs", {"type": "job", "n": n})
        assert [(await desk.next())[1] for _ in range(4)] == [0, 0, 1, 1]
    assert "may be handled again: not now" in caplog.text


class CountingWorker(Worker):
    """In the form that programs for Channels 2 to 4 have."""

    failures: list[tuple[str, str]]
    taken = 0

    async def listener(self, channel: str) -> None:
        while True:
            message = await self.channel_layer.receive(channel)
            scope = {"type": "channel", "channel": channel}
            queue = self.get_or_create_application_instance(channel, scope)
            await queue.put(message)
            self.taken += 1

    async def application_exception(self, exception: Exception, application_details: Any) -> None:
        self.failures.append((str(exception), application_details["scope"]["channel"]))
        await super().application_exception(exception, application_details)


async def test_a_listener_that_is_overridden_keeps_to_the_limit(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    worker = CountingWorker(consumer_of(desk), ["jobs"], layer, options=WorkerOptions(parallel=2))
    worker.failures = []
    async with working(worker):
        await layer.send("jobs", {"type": "fail"})
        for n in range(3):
            await layer.send("jobs", {"type": "job", "n": n})
        assert [(await desk.next())[1] for _ in range(2)] == [0, 1]
        assert worker.failures == [("a bad message", "jobs")]
        assert caplog.text.count("LookupError: a bad message") == 1
        for _ in range(20):
            await asyncio.sleep(0)
        assert worker.taken == 3
        scope = {"type": "channel", "channel": "jobs"}
        with pytest.raises(asyncio.QueueFull):
            worker.get_or_create_application_instance("jobs", scope).put_nowait({"type": "job"})
        desk.go.set()
        rest = [await desk.next() for _ in range(4)]
        assert sorted(n for what, n, _ in rest if what == "ended") == [0, 1, 2]


class OwnHandle(CountingWorker):
    async def handle(self) -> None:
        """Until the first message."""
        listener = asyncio.create_task(self.listener("other"))
        while not self.taken:  # noqa: ASYNC110 - the loop's own turns count
            await asyncio.sleep(0)
        listener.cancel()


async def test_a_handle_that_is_overridden_leaves_no_application(
    layer: InMemoryChannelLayer,
) -> None:
    desk = Desk()
    await layer.send("other", {"type": "job", "n": 7})
    worker = OwnHandle(consumer_of(desk), [], layer)
    await asyncio.to_thread(worker.run)
    assert worker.taken == 1
    assert worker._busy() == []
