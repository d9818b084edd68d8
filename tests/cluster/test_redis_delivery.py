"""Leases and delays on Redis: as its older releases have them, over several, and what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from channels.backends.redis import transport as redis_transport
from channels.exceptions import ChannelFull
from channels.layers import RedisChannelLayer
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.sites import redis_command
from tests.cluster.traffic import until

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


def clients(redis: OwnServer) -> int:
    return redis_command(redis.port, "CLIENT LIST").count(b" addr=")


def waiting(redis: OwnServer, queue: str) -> int:
    """How many processes wait for a queue."""
    return int(redis_command(redis.port, "ZCARD", f"asgi:w:{queue}")[1:])


async def test_two_connections_however_many_queues_are_read(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    before = clients(redis)
    layer = make_layer()
    names = [f"jobs{number}" for number in range(20)]
    readers = [asyncio.create_task(layer.receive(name)) for name in names]
    for name in names:
        await layer.send(name, {"type": "x"})
    await asyncio.wait_for(asyncio.gather(*readers), 10)
    assert clients(redis) - before == 2


async def test_a_process_that_died_while_it_waited_is_passed_over(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    alive, dead = make_layer(), make_layer()
    for layer in (alive, dead):
        layer.adopt_loop()
    reading = asyncio.create_task(alive.receive("work"))
    await until(lambda: waiting(redis, "work") == 1)
    lost = asyncio.create_task(dead.receive("work"))
    await until(lambda: waiting(redis, "work") == 2)
    # As one that was killed: its lease has run out, and Redis has it noted as waiting still.
    dead.transport.abandon()
    assert redis_command(redis.port, "DEL", f"asgi:al:{dead.node.id}") == b":1\r\n"
    await alive.send("work", {"type": "x"})
    assert await asyncio.wait_for(reading, 2) == {"type": "x"}
    lost.cancel()
    await asyncio.wait([lost])


async def test_a_process_that_does_not_take_what_it_was_woken_for_delays_it_by_a_look(
    make_layer: Callable[..., RedisChannelLayer],
    redis: OwnServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_transport, "LOOK_SECONDS", 0.2)
    alive, stuck = make_layer(), make_layer()
    reading = asyncio.create_task(alive.receive("work"))
    await until(lambda: waiting(redis, "work") == 1)
    lost = asyncio.create_task(stuck.receive("work"))
    await until(lambda: waiting(redis, "work") == 2)
    transport: Any = stuck.transport
    monkeypatch.setattr(transport._leases, "_ask", lambda _: None)
    await alive.send("work", {"type": "x"})
    assert await asyncio.wait_for(reading, 2) == {"type": "x"}
    lost.cancel()
    await asyncio.wait([lost])


async def test_a_push_whose_answer_was_lost_is_not_made_twice(
    make_layer: Callable[..., RedisChannelLayer], redis: OwnServer
) -> None:
    layer = make_layer(channel_capacity={"short": 1})
    await layer.send("short", {"type": "x"})
    transport: Any = layer.transport
    connection = transport._commands
    connection.on_reply = lambda _: None
    sends = [layer.send(name, {"type": "x"}) for name in ("long", "short", "long")]
    tasks = [asyncio.create_task(send) for send in sends]
    await until(lambda: redis_command(redis.port, "LLEN", "asgi:q:long") == b":2\r\n")
    # In the order of the pushes: room that there is now does not change what was answered.
    assert redis_command(redis.port, "DEL", "asgi:q:short") == b":1\r\n"
    connection.close()
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(answer) for answer in answers] == [type(None), ChannelFull, type(None)]
    assert redis_command(redis.port, "LLEN", "asgi:q:long") == b":2\r\n"
    assert layer.statistics()["replayed"] == 3


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
