"""Leases and delays on Redis: as its older releases have them, over several, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from channels.layers import RedisChannelLayer
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.sites import redis_command

DELIVERY = {"jobs": {"visibility_timeout": 1.0, "max_attempts": 20, "dead_letter": "dead"}}


@pytest.fixture
async def make_layer(redis: OwnServer) -> AsyncIterator[Callable[..., RedisChannelLayer]]:
    made: list[RedisChannelLayer] = []

    def make(**config: Any) -> RedisChannelLayer:
        url = f"redis://127.0.0.1:{redis.port}"
        config = {"capacity": 10_000, "delivery": DELIVERY, "expiry": 2.0, **config}
        made.append(RedisChannelLayer([url], **config))
        return made[-1]

    yield make
    await made[0].flush()
    for layer in made:
        await layer.close()


async def test_a_server_that_cannot_wait_is_asked(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    layer = make_layer()
    await layer.new_channel()
    for shard in layer.transport.shards:
        shard.leases.waits = False
    reading = asyncio.create_task(layer.receive_leased("jobs"))
    await asyncio.sleep(0.05)
    await layer.send("jobs", {"type": "x"})
    _, lease = await asyncio.wait_for(reading, 10)
    assert await lease.ack()


async def test_what_does_not_expire_does_not_vanish_with_its_queue(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x"})
    _, lease = await layer.receive_leased("jobs")
    await lease.reject("bad")
    dead = "asgi:q:dead"
    years = 365 * 86_400_000

    def life(key: str) -> int:
        return int(redis_command(redis.port, "PTTL", key)[1:])

    assert life(dead) > years
    # One that comes back from a reader that has gone does not shorten it.
    reader = asyncio.create_task(layer.receive("dead"))
    other = asyncio.create_task(layer.receive("dead"))
    await reader
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    await layer.send("jobs", {"type": "x"})
    assert life("asgi:q:jobs") > years
    _, lease = await layer.receive_leased("jobs")
    await lease.give_back()
    assert life("asgi:q:jobs") > years


async def test_nothing_is_left_behind(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    layer = make_layer()
    for delay in (0.0, 0.05):
        await layer.send("jobs", {"type": "x"}, delay=delay)
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        await lease.retry(delay=0.05)
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        await lease.extend()
        await lease.ack()
    for key in ("asgi:hd", "asgi:hl", "asgi:hb", "asgi:q:jobs"):
        assert redis_command(redis.port, "EXISTS", key) == b":0\r\n", key


async def test_leases_and_delays_on_several_servers(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(tmp_path / str(n))) for n in range(2)]
        urls = [f"redis://127.0.0.1:{server.port}" for server in servers]
        near, far = (RedisChannelLayer(urls, delivery={"work*": {}}) for _ in range(2))
        for number in range(8):
            await near.send(f"work-{number}", {"type": "x", "number": number}, delay=0.1)
        for number in range(8):
            async with asyncio.timeout(10):
                message, lease = await far.receive_leased(f"work-{number}")
            assert message["number"] == number
            assert await lease.ack()
        await near.close()
        await far.close()
