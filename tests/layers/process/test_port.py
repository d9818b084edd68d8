"""Loops and threads: batches, closed loops, cancellation across loops, the daemon thread."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers.process.port import SLICE, OwnerLoop, Ports, loop_thread
from channels.testing.layers.base import soon, until


async def test_callbacks_arrive_in_order_and_one_that_fails_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ports, got = Ports(), []
    loop = asyncio.get_running_loop()

    def post() -> None:
        for number in range(1000):
            ports.post(loop, lambda number=number: got.append(1 / (number - 500)))  # type: ignore[misc]

    await asyncio.to_thread(post)
    await until(lambda: len(got) == 999, "the callbacks")
    assert got[:500] == [1 / (number - 500) for number in range(500)]
    assert "ZeroDivisionError" in caplog.text


async def test_many_callbacks_wake_the_loop_once() -> None:
    ports, wakes = Ports(), []
    other = asyncio.new_event_loop()
    plain = other.call_soon_threadsafe
    other.call_soon_threadsafe = lambda *call, **more: wakes.append(1) or plain(*call, **more)  # type: ignore[func-returns-value,method-assign]
    done: list[int] = []
    for number in range(100):
        assert ports.post(other, lambda number=number: done.append(number))  # type: ignore[misc]
    await asyncio.to_thread(other.run_until_complete, asyncio.sleep(0.01))
    other.close()
    assert done == list(range(100))
    assert len(wakes) == 1


async def test_a_crowd_is_woken_in_slices_and_the_loop_runs_between() -> None:
    ports, loop = Ports(), asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3 * SLICE)]
    # One whose waiter has gone meanwhile.
    futures[SLICE].cancel()
    for future in futures:
        assert ports.post(loop, future)
    turns = [0]
    while not all(future.done() for future in futures):
        await asyncio.sleep(0)
        now = sum(future.done() for future in futures)
        assert now - turns[-1] <= SLICE + 1
        turns.append(now)
    # What comes when all is served wakes the loop again.
    late = loop.create_future()
    ports.post(loop, late)
    await soon(late)


async def test_a_closed_loop_takes_nothing() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    assert not Ports().post(closed, lambda: None)


async def test_without_a_loop_that_offers_itself_a_thread_owns_the_layer() -> None:
    owner = OwnerLoop(Ports(), lambda: None)

    async def where() -> str:
        return threading.current_thread().name

    assert await owner.call(where) == "channels-layers"
    assert not owner.adopt(asyncio.get_running_loop())
    owner.release()
    assert owner.adopt(asyncio.get_running_loop())
    assert await owner.call(where) == threading.current_thread().name


async def test_errors_and_cancellation_cross_loops() -> None:
    owner = OwnerLoop(Ports(), lambda: None)
    stopped = threading.Event()

    async def fail() -> None:
        raise LookupError("there")

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(LookupError, match="there"):
        await owner.call(fail)
    started = threading.Event()
    calling = asyncio.create_task(owner.call(wait))
    await asyncio.to_thread(started.wait, 5)
    calling.cancel()
    await asyncio.wait([calling])
    assert await asyncio.to_thread(stopped.wait, 5)
    with pytest.raises(ChannelLayerUnavailable, match="does not answer"):
        await owner.call(wait, 0.01)


async def test_the_owner_is_lost_with_its_loop() -> None:
    lost: list[bool] = []
    owner = OwnerLoop(Ports(), lambda: lost.append(True))
    former = asyncio.new_event_loop()
    assert owner.adopt(former)
    former.close()
    assert owner.current is None
    assert lost == [True]
    assert owner.adopt(asyncio.get_running_loop())


def test_threads_call_without_a_loop_of_their_own() -> None:
    owner = OwnerLoop(Ports(), lambda: None)

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda number: owner.call_sync(lambda: double(number), 5), range(200))
        assert list(results) == [2 * number for number in range(200)]
    with pytest.raises(TimeoutError):
        owner.call_sync(lambda: asyncio.sleep(60), 0.01)


def test_the_thread_may_be_stopped_and_starts_again() -> None:
    first = loop_thread.loop()
    loop_thread.stop()
    assert first.is_closed()
    assert not loop_thread.loop().is_closed()
