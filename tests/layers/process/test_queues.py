"""Queues read at most once where acknowledgements get lost and readers are cancelled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from channels.layers.process import queues
from channels.testing.layers.base import until
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer

Make = Callable[..., LoopbackChannelLayer]


@pytest.fixture
def broker() -> LoopbackBroker:
    return LoopbackBroker()


@pytest_asyncio.fixture
async def make(broker: LoopbackBroker) -> AsyncIterator[Make]:
    made: list[LoopbackChannelLayer] = []

    def make_layer(**config: Any) -> LoopbackChannelLayer:
        layer = LoopbackChannelLayer(broker, send_timeout=0.5, **config)
        layer.adopt_loop()
        made.append(layer)
        return layer

    yield make_layer
    for layer in made:
        await layer.close()


async def soon(work: Any) -> Any:
    async with asyncio.timeout(10):
        return await work


async def read_until_acknowledging(layer: LoopbackChannelLayer) -> "asyncio.Task[Any]":
    """A reader whose message is being acknowledged."""
    calls = layer.transport.broker.calls
    before = calls["acknowledge"]
    reading = asyncio.create_task(layer.receive("work"))
    while calls["acknowledge"] == before:  # noqa: ASYNC110 - the loop's own turns count
        await asyncio.sleep(0)
    return reading


async def read_until_waiting(layer: LoopbackChannelLayer) -> "asyncio.Task[Any]":
    """A reader for which the broker is asked for a message."""
    before = count_of(layer)
    reading = asyncio.create_task(layer.receive("work"))
    await until(lambda: count_of(layer) > before, "the demand")
    return reading


def count_of(layer: LoopbackChannelLayer) -> int:
    return layer.transport._leasing.get("work", (0,))[0]


async def test_a_message_whose_acknowledgement_was_lost_is_delivered_once(make: Make) -> None:
    layer, other = make(), make()
    await other.send("work", {"type": "x"})
    await layer.new_channel()
    layer.transport.lose_answers = 1
    reading = asyncio.create_task(layer.receive("work"))
    await asyncio.sleep(0.01)
    assert not reading.done()
    layer.transport.restore()
    assert await soon(reading) == {"type": "x"}
    assert not layer.transport.broker.engine.queues


async def test_a_message_whose_lease_ran_out_meanwhile_is_left_to_others(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "PLAIN_LEASE_SECONDS", 0.1)
    layer, other = make(), make()
    await other.send("work", {"type": "x"})
    await layer.new_channel()
    layer.transport.lose_answers = 1
    reading = asyncio.create_task(layer.receive("work"))
    await asyncio.sleep(0.2)
    layer.transport.restore()
    await other.send("work", {"type": "y"})
    assert await soon(reading) == {"type": "y"}


async def test_the_next_reader_gets_what_was_acknowledged_for_a_cancelled_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "GRACE_SECONDS", 0.005)
    layer = make()
    for number in range(2):
        await layer.send("work", {"type": "x", "number": number})
    reading = await read_until_acknowledging(layer)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    # Longer than what nobody has begun to acknowledge would wait for a reader.
    await asyncio.sleep(0.02)
    for number in range(2):
        assert (await soon(layer.receive("work")))["number"] == number


async def test_what_may_be_acknowledged_is_kept_longer_than_the_demand_for_others(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "GRACE_SECONDS", 0.01)
    layer, other = make(), make()
    first, second = [await read_until_waiting(layer) for _ in range(2)]
    layer.transport.lose_answers = 1
    await other.send("work", {"type": "x", "number": 0})
    second.cancel()
    await until(lambda: len(layer.node.link.outbox) == 1, "the acknowledgement to wait")
    first.cancel()
    await asyncio.wait([first, second])
    await other.send("work", {"type": "x", "number": 1})
    layer.transport.restore()
    await asyncio.sleep(0.03)
    assert [(await soon(layer.receive("work")))["number"] for _ in range(2)] == [0, 1]


async def test_what_several_cancelled_readers_left_comes_in_its_order(make: Make) -> None:
    layer, other = make(), make()
    readings = [await read_until_waiting(layer) for _ in range(2)]
    layer.transport.lose_answers = 1
    for number in range(3):
        await other.send("work", {"type": "x", "number": number})
    await until(lambda: len(layer.node.link.outbox) == 2, "both acknowledgements to wait")
    for reading in reversed(readings):
        reading.cancel()
        await asyncio.wait([reading])
    layer.transport.restore()
    assert [(await soon(layer.receive("work")))["number"] for _ in range(3)] == [0, 1, 2]


async def leave_two(layer: LoopbackChannelLayer, other: LoopbackChannelLayer) -> None:
    """Have two messages leased to a layer whose readers were cancelled just before."""
    readings = [await read_until_waiting(layer) for _ in range(2)]
    for reading in readings:
        reading.cancel()
    await asyncio.wait(readings)
    for number in range(2):
        await other.send("work", {"type": "x", "number": number})


async def test_what_is_released_is_at_the_head_of_its_queue_in_its_order(make: Make) -> None:
    layer, other = make(), make()
    await leave_two(layer, other)
    await other.send("work", {"type": "x", "number": 2})
    await until(lambda: layer.transport.broker.calls["release"] == 2, "the releases")
    assert [(await soon(other.receive("work")))["number"] for _ in range(3)] == [0, 1, 2]


async def test_nothing_is_taken_while_what_comes_before_it_is_released(make: Make) -> None:
    layer, other = make(), make()
    await leave_two(layer, other)
    calls = layer.transport.broker.calls
    while not calls["release"]:  # noqa: ASYNC110 - the loop's own turns count
        await asyncio.sleep(0)
    assert calls["release"] == 1
    assert [(await soon(layer.receive("work")))["number"] for _ in range(2)] == [0, 1]


async def test_what_was_acknowledged_and_nobody_reads_is_sent_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "KEEP_SECONDS", 0.02)
    layer, other = make(), make()
    await layer.send("work", {"type": "x"})
    reading = await read_until_acknowledging(layer)
    reading.cancel()
    assert await soon(other.receive("work")) == {"type": "x"}
    with contextlib.suppress(asyncio.CancelledError):
        await reading


async def test_a_process_that_closes_puts_back_what_its_readers_left(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "KEEP_SECONDS", 600)
    layer, other = make(), make()
    await layer.send("work", {"type": "x"})
    reading = await read_until_acknowledging(layer)
    reading.cancel()
    await asyncio.wait([reading])
    await layer.close()
    assert await soon(other.receive("work")) == {"type": "x"}


async def test_a_queue_that_nobody_reads_any_more_is_forgotten(make: Make) -> None:
    layer = make()
    await layer.send("work", {"type": "x"})
    await layer.receive("work")
    reading = asyncio.create_task(layer.receive("other"))
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.sleep(2 * queues.GRACE_SECONDS)
    assert not layer.node.queues._queues


async def test_a_reader_goes_on_when_its_layer_was_closed_and_is_used_again(make: Make) -> None:
    layer, other = make(), make()
    reading = await read_until_waiting(layer)
    await layer.close()
    await other.send("work", {"type": "x"})
    await layer.new_channel()
    assert await soon(reading) == {"type": "x"}
