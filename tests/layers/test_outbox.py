"""The line of what could not be sent: order, bounds, giving up."""

import asyncio

import pytest

from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.outbox import Outbox


class Wire:
    """Notes what is sent, or fails."""

    def __init__(self) -> None:
        self.is_up = True
        self.sent: list[int] = []

    async def send(self, number: int) -> int:
        if not self.is_up:
            raise TransportDown
        await asyncio.sleep(0)
        if not self.is_up:
            raise TransportDown
        self.sent.append(number)
        return -number


async def test_open_it_runs_at_once_and_gives_the_result() -> None:
    outbox, wire = Outbox(1.0, 10, 100), Wire()
    outbox.open()
    assert await outbox.submit(1, lambda: wire.send(5)) == -5
    assert outbox.replayed == 0


async def test_what_failed_is_sent_before_what_came_later() -> None:
    outbox, wire = Outbox(1.0, 10, 100), Wire()
    outbox.open()
    sends = [
        asyncio.create_task(outbox.submit(1, lambda n=n: wire.send(n)))  # type: ignore[misc]
        for n in range(3)
    ]
    await asyncio.sleep(0)
    wire.is_up = False
    await asyncio.sleep(0.01)
    assert not outbox.is_open
    sends += [
        asyncio.create_task(outbox.submit(1, lambda n=n: wire.send(n)))  # type: ignore[misc]
        for n in range(3, 6)
    ]
    await asyncio.sleep(0)
    wire.is_up = True
    outbox.open()
    assert await asyncio.gather(*sends) == [0, -1, -2, -3, -4, -5]
    assert wire.sent == [0, 1, 2, 3, 4, 5]
    assert len(outbox) == 0


async def test_errors_belong_to_who_submitted() -> None:
    outbox = Outbox(1.0, 10, 100)

    async def fail() -> None:
        raise LookupError

    waiting = asyncio.create_task(outbox.submit(1, fail))
    await asyncio.sleep(0)
    outbox.open()
    with pytest.raises(LookupError):
        await waiting


async def test_an_operation_that_hangs_does_not_stop_the_line() -> None:
    outbox, wire = Outbox(0.05, 10, 100), Wire()
    hanging = asyncio.create_task(outbox.submit(1, lambda: asyncio.sleep(60)))
    await asyncio.sleep(0)
    outbox.open()
    with pytest.raises(ChannelLayerUnavailable):
        await hanging
    assert await outbox.submit(1, lambda: wire.send(1)) == -1
    assert outbox.given_up == 1
    await outbox.close()


async def test_bounds() -> None:
    outbox, wire = Outbox(1.0, 2, 100), Wire()
    first = asyncio.create_task(outbox.submit(90, lambda: wire.send(1)))
    await asyncio.sleep(0)
    with pytest.raises(ChannelLayerUnavailable, match="replay_bytes=100"):
        await outbox.submit(11, lambda: wire.send(2))
    second = asyncio.create_task(outbox.submit(1, lambda: wire.send(3)))
    await asyncio.sleep(0)
    with pytest.raises(ChannelLayerUnavailable, match="replay_messages=2"):
        await outbox.submit(1, lambda: wire.send(4))
    outbox.open()
    assert (await first, await second) == (-1, -3)


async def test_waiting_for_it_to_open() -> None:
    outbox = Outbox(1.0, 2, 100)
    assert not await outbox.wait_open(0.01)
    waiting = asyncio.create_task(outbox.wait_open(5))
    await asyncio.sleep(0)
    outbox.open()
    assert await waiting
    assert await outbox.wait_open(0)


async def test_the_order_of_submission_holds_whoever_hears_of_the_failure_first() -> None:
    outbox, sent = Outbox(1.0, 10, 100), []
    outbox.open()
    hears = [asyncio.Event(), asyncio.Event()]
    tries = [0, 0]

    async def send(number: int) -> None:
        tries[number] += 1
        if tries[number] == 1:
            await hears[number].wait()
            raise TransportDown
        sent.append(number)

    sends = [
        asyncio.create_task(outbox.submit(1, lambda n=n: send(n)))  # type: ignore[misc]
        for n in range(2)
    ]
    await asyncio.sleep(0)
    for number in (1, 0):
        hears[number].set()
        await asyncio.sleep(0.01)
    outbox.open()
    await asyncio.gather(*sends)
    assert sent == [0, 1]


async def test_a_failure_heard_of_after_the_reconnect_does_not_shut_it_again() -> None:
    outbox, wire, heard = Outbox(1.0, 10, 100), Wire(), asyncio.Event()
    outbox.open()

    async def fail_once() -> int:
        if not heard.is_set():
            await heard.wait()
            raise TransportDown
        return await wire.send(1)

    waiting = asyncio.create_task(outbox.submit(1, fail_once))
    await asyncio.sleep(0)
    outbox.shut()
    outbox.open()
    heard.set()
    assert await waiting == -1
    assert outbox.is_open
