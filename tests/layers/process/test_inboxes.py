"""Inboxes: readers of any loop, woken one by one, that may be cancelled at any point."""

import asyncio
import threading
import time

from channels.layers import InMemoryChannelLayer
from channels.layers.process.inboxes import Inbox
from channels.testing.layers.base import soon


def make(capacity: int = 10) -> Inbox:
    policy = InMemoryChannelLayer(capacity=capacity, capacity_bytes=1000)
    return Inbox(threading.RLock(), time.monotonic, policy, "channel")


async def test_a_reader_cancelled_after_it_was_woken_wakes_the_next() -> None:
    inbox = make()
    first, second = (asyncio.create_task(inbox.get()) for _ in range(2))
    await asyncio.sleep(0)
    inbox.put_layer({"n": 1})
    first.cancel()
    assert await soon(second) == {"n": 1}
    assert first.cancelled()


async def test_a_reader_of_another_loop_cancelled_after_it_was_woken_wakes_the_next() -> None:
    inbox = make()
    waiting = threading.Event()
    proceed = threading.Event()

    async def read_and_cancel() -> None:
        reader = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        waiting.set()
        proceed.wait(10)
        # The wake-up is on its way to this loop, and has not come.
        reader.cancel()
        await asyncio.wait([reader])

    other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(read_and_cancel())))
    await asyncio.to_thread(waiting.wait, 10)
    mine = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put_layer({"n": 1})
    proceed.set()
    assert await soon(mine) == {"n": 1}
    await other


async def test_each_event_wakes_one_reader() -> None:
    inbox = make()
    readers = [asyncio.create_task(inbox.get()) for _ in range(5)]
    await asyncio.sleep(0)
    for number in range(5):
        inbox.put_layer({"n": number})
    assert [(await soon(reader))["n"] for reader in readers] == [0, 1, 2, 3, 4]


def test_bytes_are_bounded_and_one_large_event_fits() -> None:
    inbox = make()
    assert inbox.put_layer({}, 1001)
    assert not inbox.put_layer({}, 1)
    assert inbox.get_nowait() is not None
    assert inbox.put_layer({}, 1000)
    assert not inbox.put_layer({}, 1)


def test_what_is_taken_is_a_copy() -> None:
    inbox = make()
    event = {"type": "x"}
    inbox.put_layer(event)
    taken = inbox.get_nowait()
    assert taken == event
    assert taken is not event
