"""Leases on NATS: what its streams hold, and what is left of them afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from channels.backends.nats.transport import NatsTransport
from channels.layers import NatsChannelLayer
from tests.cluster.servers import OwnServer

DELIVERY = {"jobs": {"visibility_timeout": 1.0, "max_attempts": 20, "dead_letter": "dead"}}
MakeLayer = Callable[..., NatsChannelLayer]


@pytest.fixture
async def make_layer(nats: OwnServer) -> AsyncIterator[MakeLayer]:
    made: list[NatsChannelLayer] = []

    def make(**config: Any) -> NatsChannelLayer:
        config = {"capacity": 10_000, "delivery": DELIVERY, "expiry": 2.0, **config}
        made.append(NatsChannelLayer(f"nats://127.0.0.1:{nats.port}", **config))
        made[-1].adopt_loop()
        return made[-1]

    yield make
    await made[0].flush()
    for layer in made:
        await layer.close()


def transport_of(layer: NatsChannelLayer) -> NatsTransport:
    transport = layer.node.transport
    assert isinstance(transport, NatsTransport)
    return transport


async def holds(layer: NatsChannelLayer, stream: str, count: int) -> None:
    """Wait until a stream holds so many messages."""
    held = -1
    for _ in range(500):
        found = await transport_of(layer)._require()[0].js.stream_info(stream)
        if (held := found.state.messages) == count:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{stream} holds {held} messages")


async def test_a_lease_is_extended_beyond_the_servers_patience(make_layer: MakeLayer) -> None:
    holding, other = make_layer(), make_layer()
    await holding.send("jobs", {"type": "x"})
    _, lease = await asyncio.wait_for(holding.receive_leased("jobs"), 10)
    assert await lease.extend(3.2)
    waiting = asyncio.create_task(other.receive_leased("jobs"))
    await asyncio.sleep(2.6)
    assert not waiting.done()
    _, next_lease = await asyncio.wait_for(waiting, 10)
    assert next_lease.attempts == 2
    assert not await lease.ack()
    assert await next_lease.ack()


async def test_nothing_is_left_behind(make_layer: MakeLayer) -> None:
    layer = make_layer()
    for _ in range(2):
        await layer.send("jobs", {"type": "x"})
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        await lease.retry(delay=0.05)
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        await lease.give_back()
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        # JetStream counts deliveries: what was given back untried as well.
        assert lease.attempts == 3
        await lease.ack()
    await holds(layer, "asgi_Q_10000-kept", 0)


async def test_a_stream_that_was_deleted_ends_its_leases(make_layer: MakeLayer) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x"})
    _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
    await transport_of(layer)._require()[0].js.delete_stream("asgi_Q_10000-kept")
    assert not await lease.ack()
