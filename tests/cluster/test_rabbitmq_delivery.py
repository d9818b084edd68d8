"""Leases on RabbitMQ: channels are full, queues are deleted, readers come and go."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from channels.layers import RabbitMQChannelLayer
from tests.cluster.rabbitmq import delete, messages_in
from tests.cluster.servers import OwnServer
from tests.cluster.traffic import beside, finish, until

DELIVERY = {"jobs": {"visibility_timeout": 30.0, "max_attempts": 50, "dead_letter": "dead"}}
#: A busy machine takes its time between two cuts.
COMMON = {"capacity": 10_000, "send_timeout": 20.0}
MakeLayer = Callable[..., RabbitMQChannelLayer]


@pytest.fixture
async def make_layer(rabbitmq: OwnServer) -> AsyncIterator[MakeLayer]:
    made: list[RabbitMQChannelLayer] = []
    prefix = f"test-{uuid.uuid4().hex[:8]}"

    def make(port: int = rabbitmq.port, **config: Any) -> RabbitMQChannelLayer:
        config = {"delivery": DELIVERY, "prefix": prefix, **COMMON, **config}
        made.append(RabbitMQChannelLayer(f"amqp://guest:guest@127.0.0.1:{port}", **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    await make(send_timeout=30.0).flush()
    for layer in made:
        await layer.close()


async def lease(layer: RabbitMQChannelLayer) -> tuple[Any, Any]:
    return await asyncio.wait_for(layer.receive_leased("jobs"), 10)


async def test_what_is_put_back_is_in_no_queue_twice(make_layer: MakeLayer) -> None:
    layer = make_layer()
    for delay in (0.0, 0.05, 1.3):
        await layer.send("jobs", {"type": "x"})
        _, first = await lease(layer)
        await first.retry(delay=delay)
        _, second = await lease(layer)
        assert second.attempts == 2
        await second.extend()
        await second.ack()
    await layer.close()
    assert await messages_in(layer, "k.jobs") == 0


async def test_what_comes_back_to_a_full_channel_waits_for_room(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("jobs", {"type": "failed"})
    _, first = await lease(layer)
    await layer.send("jobs", {"type": "next"})
    assert await first.retry(delay=0)
    message, second = await lease(layer)
    assert message["type"] == "next", "it is held up by nothing"
    await second.ack()
    message, again = await lease(layer)
    assert (message["type"], again.attempts) == ("failed", 2)
    await again.ack()
    assert layer.statistics()["transport_returns_to_full_queue"] > 0


async def test_a_message_is_put_back_though_its_queue_was_deleted(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x"})
    for delay in (0.0, 0.5):
        _, held = await lease(layer)
        await delete(layer, "k.jobs")
        assert await held.retry(delay=delay)
    _, held = await lease(layer)
    assert held.attempts == 3
    assert await held.ack()


async def test_what_a_plain_reader_gives_back_has_its_place_also_in_a_full_channel(
    make_layer: MakeLayer,
) -> None:
    layer = make_layer(capacity=2)
    for number in range(2):
        await layer.send("work", {"type": "x", "number": number})
    got: list[Any] = []
    layer.node.transport.demand("work", 1, 30.0, got.append)
    await until(lambda: len(got) == 1, "the first is on lease")
    await layer.send("work", {"type": "x", "number": 2})
    assert await layer.node.transport.release("work", got[0].token, 0.0, counted=False)
    for number in range(3):
        assert (await asyncio.wait_for(layer.receive("work"), 10))["number"] == number


async def test_readers_that_come_and_go_break_no_connection(make_layer: MakeLayer) -> None:
    first, second = make_layer(), make_layer()
    chance, got = random.Random(5), Counter[int]()

    async def read(layer: RabbitMQChannelLayer) -> None:
        message, lease = await layer.receive_leased("jobs")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(lease.ack())
        got[message["number"]] += 1

    for number in range(300):
        readers = [asyncio.create_task(read(layer)) for layer in (first, second, first)]
        sender = asyncio.create_task(first.send("jobs", {"type": "x", "number": number}))
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(sender, *readers, return_exceptions=True)
    async with beside(finish(first, got)):
        await until(lambda: len(got) == 300, "none is lost")
    assert set(got.values()) == {1}, "none is doubled"
    for layer in (first, second):
        assert "transport_disconnected" not in layer.statistics()
