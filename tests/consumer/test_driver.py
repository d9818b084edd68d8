"""A handler that is driven in place cannot tell: task, context, time, cancellation, errors."""

from __future__ import annotations

import asyncio
import time
import traceback
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from channels.consumer import AsyncConsumer
from channels.consumer.driver import Driver
from channels.exceptions import StopConsumer
from channels.kit.types import Message
from tests.consumer.stubs import DrivingServer, OurServer, StubLayer

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Watcher(AsyncConsumer):
    """Notes what its handlers find."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.child: asyncio.Task[None]

    async def look(self, event: Message) -> None:
        self.log.append((asyncio.current_task(), whose.get()))

    async def mine(self, event: Message) -> None:
        whose.set("mine")

    async def mine_later(self, event: Message) -> None:
        await self.go.wait()
        whose.set("mine later")
        self.log.append(asyncio.current_task())

    async def in_a_thread(self, event: Message) -> None:
        self.log.append(await sync_to_async(whose.get)())
        self.begun.set()

    async def give_way(self, event: Message) -> None:
        await asyncio.sleep(0)
        self.log.append("gave way")

    async def take_long(self, event: Message) -> None:
        try:
            async with asyncio.timeout(0):
                await self.go.wait()
        except TimeoutError:
            self.log.append("too long")

    async def ask_a_child(self, event: Message) -> None:
        self.child = asyncio.create_task(self.wait())
        self.begun.set()
        await self.child

    async def wait(self) -> None:
        await self.go.wait()

    async def catch(self, event: Message) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise

    async def cancel_itself(self, event: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        self.log.append("asked")
        self.begun.set()
        if event.get("wait"):
            await self.go.wait()

    async def fail(self, event: Message) -> None:
        raise LookupError("a handler's own")

    async def fail_later(self, event: Message) -> None:
        await asyncio.sleep(0)
        raise LookupError("a handler's own")

    async def stop(self, event: Message) -> None:
        raise StopConsumer


async def turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def idle(consumer: AsyncConsumer) -> DrivingServer:
    """A consumer that waits for its next event."""
    run = DrivingServer(consumer)
    await turns()
    return run


async def test_an_idle_consumers_task_sleeps_on(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    step = Driver.step

    async def counted(self: Driver) -> bool:
        nonlocal steps
        steps += 1
        return await step(self)

    monkeypatch.setattr(Driver, "step", counted)
    consumer = Watcher()
    run = await idle(consumer)
    for number in range(1, 6):
        run.tell("look")
        await turns()
        assert len(consumer.log) == number
    assert steps == 1
    await run.stop()


async def test_the_current_task_is_the_consumers_own() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("look")
    run.tell("mine_later")
    await turns()
    consumer.go.set()
    await turns()
    run.tell("look")
    await turns()
    assert consumer.log == [(run.task, "nobody's"), run.task, (run.task, "mine later")]
    await run.stop()


async def test_what_a_handler_sets_the_next_ones_find_however_they_run() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    for kind in ("mine", "in_a_thread", "look"):
        run.tell(kind)
    await consumer.begun.wait()
    await turns()
    assert consumer.log == ["mine", (run.task, "mine")]
    await run.stop()


async def test_a_handler_does_not_see_the_senders_context() -> None:
    consumer = Watcher()
    run = await idle(consumer)

    def send() -> None:
        whose.set("the sender's")
        run.tell("look")

    copy_context().run(send)
    await turns()
    assert consumer.log == [(run.task, "nobody's")]
    await run.stop()


async def test_the_sender_goes_on_before_the_handler_runs() -> None:
    """So a handler never runs inside another, nor in the middle of a layer's work."""
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("look")
    assert consumer.log == []
    await turns()
    assert len(consumer.log) == 1
    await run.stop()


async def test_consumers_that_answer_each_other_do_not_nest(layer: StubLayer) -> None:
    class Player(AsyncConsumer):
        other = ""
        depth = most = hits = 0

        async def ball(self, event: Message) -> None:
            Player.depth += 1
            Player.most = max(Player.most, Player.depth)
            Player.hits += 1
            if Player.hits < 50:
                layer.members[self.other].mailbox.put_layer({"type": "ball"})
            Player.depth -= 1

    players = [Player(), Player()]
    runs = [await idle(player) for player in players]
    players[0].other, players[1].other = players[1].channel_name, players[0].channel_name
    runs[0].tell("ball")
    await turns(100)
    assert (Player.hits, Player.most) == (50, 1)
    for run in runs:
        await run.stop()


async def test_an_event_waits_for_the_handler_of_the_one_before() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("mine_later")
    await turns()
    run.tell("give_way")
    run.tell("look")
    await turns()
    assert consumer.log == []
    consumer.go.set()
    await turns(8)
    assert consumer.log == [run.task, "gave way", (run.task, "mine later")]
    await run.stop()


class Starter(AsyncConsumer):
    """Notes which of the tasks that its handlers created have begun when a handler runs."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.found: list[list[int]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.go = asyncio.Event()

    async def start(self, event: Message) -> None:
        self.found.append(list(self.begun))
        self.tasks.append(asyncio.create_task(self.begin(len(self.tasks))))

    async def wait_and_start(self, event: Message) -> None:
        await self.go.wait()
        await self.start(event)

    async def begin(self, number: int) -> None:
        self.begun.append(number)


async def test_tasks_of_a_handler_begin_before_the_next_one_also_among_other_consumers() -> None:
    consumers = [Starter() for _ in range(3)]
    runs = [await idle(consumer) for consumer in consumers]
    for _ in range(4):
        for run in runs:
            run.tell("start")
    await turns(8)
    for consumer in consumers:
        assert consumer.found == [list(range(count)) for count in range(4)]
    for run in runs:
        await run.stop()


async def test_a_task_of_a_handler_that_waited_begins_before_an_event_that_comes_at_once() -> None:
    """Another consumer's callback is scheduled already when the handler ends."""
    consumer, other = Starter(), Watcher()
    run, others = await idle(consumer), await idle(other)
    loop = asyncio.get_running_loop()

    run.tell("wait_and_start")
    await turns()
    loop.call_soon(others.tell, "look")
    consumer.go.set()
    loop.call_soon(run.tell, "start")
    await turns()
    assert consumer.found == [[], [0]]
    await run.stop()
    await others.stop()


async def test_many_consumers_with_an_event_do_not_hold_the_loop() -> None:
    class Slow(AsyncConsumer):
        async def work(self, event: Message) -> None:
            until = time.monotonic() + 0.001
            while time.monotonic() < until:
                pass
            handled.append(passed)

    handled: list[int] = []
    passed = 0
    runs = [await idle(Slow()) for _ in range(100)]
    for run in runs:
        run.tell("work")
    while len(handled) < 100:
        await asyncio.sleep(0)
        passed += 1
    # 16 at least between two looks at the clock: 7 turns at the most that this takes.
    assert max(handled.count(turn) for turn in set(handled)) <= 16
    for run in runs:
        await run.stop()


async def test_a_timeout_in_a_handler_ends_what_it_bounds() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("take_long")
    run.tell("look")
    await turns(8)
    assert consumer.log == ["too long", (run.task, "nobody's")]
    assert run.task.cancelling() == 0
    await run.stop()


async def test_an_idle_consumer_can_be_cancelled() -> None:
    run = await idle(Watcher())
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert run.mailbox.on_event is None


@pytest.mark.parametrize("after", range(4))
async def test_a_cancellation_reaches_the_child_that_a_handler_awaits(after: int) -> None:
    """Also before the task has had its turn to go on with the handler."""
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("ask_a_child")
    await consumer.begun.wait()
    await turns(after)
    run.task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert consumer.child.cancelled()


@pytest.mark.parametrize("kind", ["catch", "cancel_itself"])
async def test_a_cancellation_reaches_a_handler_at_its_first_wait(kind: str) -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell(kind, wait=True)
    await consumer.begun.wait()
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert consumer.log == ["cancelled" if kind == "catch" else "asked"]


async def test_a_handler_that_cancels_its_task_ends_the_consumer() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("cancel_itself")
    run.tell("look")
    with pytest.raises(asyncio.CancelledError):
        await run.task
    assert consumer.log == ["asked"]


@pytest.mark.parametrize("kind", ["fail", "fail_later"])
async def test_an_error_ends_the_consumer_with_the_handlers_traceback(kind: str) -> None:
    run = await idle(Watcher())
    run.tell(kind)
    with pytest.raises(LookupError, match="a handler's own") as caught:
        await run.end()
    assert kind in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


async def test_stop_consumer_ends_it_and_what_waits_stays() -> None:
    consumer = Watcher()
    run = await idle(consumer)
    run.tell("stop")
    run.tell("look")
    await run.end()
    assert consumer.log == []
    assert run.mailbox.client_size == 1


async def test_after_the_clients_last_event_it_ends() -> None:
    class Polite(Watcher):
        async def websocket_disconnect(self, event: Message) -> None:
            self.log.append("gone")

    consumer = Polite()
    run = await idle(consumer)
    run.tell("websocket.disconnect", code=1000)
    await run.end()
    assert consumer.log == ["gone"]


async def test_in_a_task_of_its_own_a_consumer_keeps_that_tasks_context() -> None:
    """A middleware that starts a task has given it a copy: nothing is driven there."""

    async def middleware(*args: Any) -> None:
        await asyncio.create_task(consumer(*args))

    consumer = Watcher()
    run: OurServer = DrivingServer(middleware)
    for kind in ("mine", "look"):
        await turns()
        run.tell(kind)
    await turns()
    ((task, found),) = consumer.log
    assert task is not run.task
    assert found == "mine"
    assert run.context is not None
    assert run.context.get(whose) is None
    await run.stop()


class Odd:
    """What no loop knows how to wait for."""

    def __await__(self) -> Any:
        yield self


class Waiting(AsyncConsumer):
    """Handlers that wait in all the ways there are; each notes what it met."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.slow: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def note(self, what: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.log.append((what, task.get_name(), task.cancelling()))

    async def often(self, event: Message) -> None:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                self.note(number)
        except asyncio.CancelledError as error:
            self.note(error.args)
            await asyncio.sleep(0)
            self.note("cleaned up")
            raise

    async def shielded(self, event: Message) -> None:
        try:
            self.note(await asyncio.shield(self.slow))
        except asyncio.CancelledError:
            self.note("cancelled")

    async def shared(self, event: Message) -> None:
        async def other() -> str:
            return await asyncio.shield(self.slow)

        child = asyncio.create_task(other())
        self.note(await asyncio.gather(child, asyncio.shield(self.slow), self.slow))

    async def bounded(self, event: Message) -> None:
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            self.note("too long")
        self.note(await self.slow)

    async def group(self, event: Message) -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise LookupError("a child's")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.sleep(60)
        except* LookupError as errors:
            self.note(str(errors.exceptions))

    async def odd(self, event: Message) -> None:
        await asyncio.sleep(0)
        try:
            await Odd()
        except RuntimeError as error:
            self.note(str(error).partition(":")[0])

    async def of_another_loop(self, event: Message) -> None:
        loop = asyncio.new_event_loop()
        try:
            await loop.create_future()
        except RuntimeError as error:
            self.note("attached to a different loop" in str(error))
        finally:
            loop.close()

    async def itself(self, event: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await task
        except RuntimeError as error:
            self.note(str(error).partition(":")[0].partition("<")[0])

    async def fails(self, event: Message) -> None:
        await asyncio.sleep(0)
        await self.slow
        raise LookupError("its own")

    async def look(self, event: Message) -> None:
        self.note("the next one")


async def outcome(kind: str, cancelled_after: int | None, *, driven: bool) -> Any:
    """All that the handler and the consumer's task noticed."""
    consumer = Waiting()
    run: OurServer = (DrivingServer if driven else OurServer)(consumer)
    run.task.set_name("the consumer's")
    await turns()
    run.tell(kind)
    run.tell("look")
    for turn in range(16):
        if turn == cancelled_after:
            run.task.cancel("enough")
        if turn == 8 and not consumer.slow.done():
            consumer.slow.set_result("slow")
        await turns(1)
    run.tell("websocket.disconnect")
    result = (await asyncio.gather(run.task, return_exceptions=True))[0]
    ended = type(result), getattr(result, "args", None), run.task.cancelling()
    return consumer.log, ended, consumer.slow.cancelled()


@pytest.mark.parametrize(
    "kind",
    [
        "often",
        "shielded",
        "shared",
        "bounded",
        "group",
        "odd",
        "of_another_loop",
        "itself",
        "fails",
    ],
)
async def test_a_handler_meets_what_it_would_meet_in_its_task(kind: str) -> None:
    assert await outcome(kind, None, driven=True) == await outcome(kind, None, driven=False)
    # A turn more or less passes before it begins; between two waits all is alike.
    plain = [await outcome(kind, turn, driven=False) for turn in range(16)]
    driven = [await outcome(kind, turn, driven=True) for turn in range(16)]
    assert [each for each in driven if each not in plain] == []
    assert [each for each in plain if each not in driven] == []


async def test_a_handlers_task_sleeps_on_while_the_handler_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed_over = 0
    go_on = Driver._go_on

    async def counted(self: Driver, *args: Any) -> bool:
        nonlocal handed_over
        handed_over += 1
        return await go_on(self, *args)

    monkeypatch.setattr(Driver, "_go_on", counted)
    consumer = Waiting()
    run = await idle(consumer)
    for kind in ("often", "shared"):
        run.tell(kind)
    await turns(16)
    consumer.slow.set_result("slow")
    await turns(16)
    assert len(consumer.log) == 4
    assert handed_over == 0
    await run.stop()
