"""Leases and delays on RabbitMQ: channels are full, queues are deleted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pamqp import commands

from channels.backends.rabbitmq.transport import RabbitMQTransport
from channels.layers import RabbitMQChannelLayer
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


async def ask(layer: RabbitMQChannelLayer, frame: Any) -> Any:
    """Ask the broker something over the layer's own connection."""
    transport = layer.node.transport
    assert isinstance(transport, RabbitMQTransport)
    return await transport._require_session().declarer.call(frame)


async def lying_in(layer: RabbitMQChannelLayer, queue: str) -> int:
    """How many messages lie unread in a queue of the broker."""
    name = f"{layer.prefix}.{queue}"
    found = await ask(layer, commands.Queue.Declare(0, name, passive=True))
    assert isinstance(found.message_count, int)
    return found.message_count


async def test_what_is_put_back_is_in_no_queue_twice(make_layer: MakeLayer) -> None:
    layer = make_layer()
    for delay in (0.0, 0.05, 1.3):
        await layer.send("jobs", {"type": "x"}, delay=delay)
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        await lease.retry(delay=delay)
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        assert lease.attempts == 2
        await lease.extend()
        await lease.ack()
    levels = [f"later.{level}" for level in range(-2, 11)]
    for queue in ("k.jobs", "r.jobs", "due", *levels):
        assert await lying_in(layer, queue) == 0, queue


async def test_a_delay_goes_through_several_queues_and_outlives_the_next(
    make_layer: MakeLayer,
) -> None:
    layer, loop = make_layer(), asyncio.get_running_loop()
    began = loop.time()
    await layer.send("work", {"type": "x"}, delay=5.6)
    assert await lying_in(layer, "later.1") == 1, "four seconds at first"
    await ask(layer, commands.Queue.Delete(0, f"{layer.prefix}.later.0"))
    assert await asyncio.wait_for(layer.receive("work"), 20) == {"type": "x"}
    assert loop.time() - began >= 5.6 - 0.05
    assert layer.statistics()["transport_delayed_put_back"] == 1


async def test_a_delayed_message_waits_for_room(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("work", {"type": "now"})
    await layer.send("work", {"type": "late"}, delay=0.1)
    await until(
        lambda: layer.statistics().get("transport_delayed_put_off", 0) > 0, "it finds no room"
    )
    for expected in ("now", "late"):
        assert (await asyncio.wait_for(layer.receive("work"), 10))["type"] == expected


async def test_a_kept_channel_has_room_for_what_was_accepted(make_layer: MakeLayer) -> None:
    layer = make_layer(capacity=1)
    await layer.send("jobs", {"type": "late"}, delay=0.5)
    await layer.send("jobs", {"type": "now"})
    await asyncio.sleep(0.6)
    for expected in ("late", "now"):
        message, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        assert message["type"] == expected
        await lease.ack()


async def test_a_message_is_put_back_though_its_queue_was_deleted(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x"})
    for delay in (0.0, 5.0):
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        for queue in ("r.jobs", "later.1"):
            await ask(layer, commands.Queue.Delete(0, f"{layer.prefix}.{queue}"))
        assert await lease.retry(delay=delay)
    _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
    assert lease.attempts == 3
    assert await lease.ack()
    assert layer.statistics()["transport_put_back_anew"] == 2


async def test_kept_channels_are_read_at_most_once_too(make_layer: MakeLayer) -> None:
    layer = make_layer()
    for number in range(2):
        await layer.send("jobs", {"type": "x", "number": number})
    _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
    await lease.give_back()
    for number in range(2):
        assert (await asyncio.wait_for(layer.receive("jobs"), 10))["number"] == number


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
