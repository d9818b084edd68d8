"""The owner loop: who it is, calls and cancellation from other loops, the daemon thread."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers.process.owner import OwnerLoop, loop_thread


async def test_without_a_loop_that_offers_itself_a_thread_owns_the_layer() -> None:
    owner = OwnerLoop(lambda: None)

    async def where() -> str:
        return threading.current_thread().name

    assert await owner.call(where) == "channels-layers"
    assert not owner.adopt(asyncio.get_running_loop())
    owner.release()
    assert owner.adopt(asyncio.get_running_loop())
    assert await owner.call(where) == threading.current_thread().name


async def test_errors_and_cancellation_cross_loops() -> None:
    owner = OwnerLoop(lambda: None)
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
    owner = OwnerLoop(lambda: lost.append(True))
    former = asyncio.new_event_loop()
    assert owner.adopt(former)
    former.close()
    assert owner.current is None
    assert lost == [True]
    assert owner.adopt(asyncio.get_running_loop())


def test_threads_call_without_a_loop_of_their_own() -> None:
    owner = OwnerLoop(lambda: None)

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
