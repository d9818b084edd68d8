"""Queues read at most once where acknowledgements get lost and readers are cancelled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from channels.layers.process import queues
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


async def test_the_next_reader_gets_what_was_acknowledged_for_a_cancelled_one(make: Make) -> None:
    layer = make()
    for number in range(2):
        await layer.send("work", {"type": "x", "number": number})
    reading = await read_until_acknowledging(layer)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    for number in range(2):
        assert (await soon(layer.receive("work")))["number"] == number


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


async def test_a_process_that_closes_puts_back_what_its_readers_left(make: Make) -> None:
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
