"""Leases and delays on Redis while connections break, and as its older releases have them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from channels.layers import RedisChannelLayer
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.test_redis import command, kill_connections
from tests.cluster.traffic import beside, finish, until

DELIVERY = {"jobs": {"visibility_timeout": 1.0, "max_attempts": 20, "dead_letter": "dead"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def make_layer(server: OwnServer) -> AsyncIterator[Callable[..., RedisChannelLayer]]:
    made: list[RedisChannelLayer] = []

    def make(**config: Any) -> RedisChannelLayer:
        url = f"redis://127.0.0.1:{server.port}"
        config = {"capacity": 10_000, "delivery": DELIVERY, "expiry": 2.0, **config}
        made.append(RedisChannelLayer([url], **config))
        return made[-1]

    yield make
    await made[0].flush()
    for layer in made:
        await layer.close()


async def test_killed_connections_lose_no_lease_and_no_delayed_message(
    make_layer: Callable[..., RedisChannelLayer], server: OwnServer
) -> None:
    count, done = 400, Counter[int]()
    sender, *workers = (make_layer() for _ in range(3))
    killing = kill_connections(server.port, 0.15)
    async with beside(killing, *(finish(layer, done) for layer in workers for _ in range(4))):
        for number in range(count):
            await sender.send("jobs", {"type": "x", "number": number}, delay=number % 2 * 0.3)
            await asyncio.sleep(0.002)
        await until(lambda: len(done) == count, "all are done")
    assert sender.statistics()["disconnected"] > 2
    # Doubled: what was done when the word of it was lost with the connection.
    assert sum(done.values()) - count <= 40


async def test_a_server_that_cannot_wait_is_asked(
    make_layer: Callable[..., RedisChannelLayer], server: OwnServer
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
    make_layer: Callable[..., RedisChannelLayer], server: OwnServer
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x"})
    _, lease = await layer.receive_leased("jobs")
    await lease.reject("bad")
    dead = "asgi:q:dead"
    years = 365 * 86_400_000

    def life(key: str) -> int:
        return int(command(server.port, "PTTL", key)[1:])

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
    make_layer: Callable[..., RedisChannelLayer], server: OwnServer
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
        assert command(server.port, "EXISTS", key) == b":0\r\n", key
