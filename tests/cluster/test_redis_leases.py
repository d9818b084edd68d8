"""Queues of the Redis layers read at least once: no message is lost, whatever breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from channels.layers import RedisChannelLayer
from tests.cluster.history import Mark, PublisherLog, judge_queue
from tests.cluster.servers import OwnServer, redis_server
from tests.cluster.test_redis import beside, kill_connections
from tests.cluster.traffic import every, publish, until

DELIVERY = {"delivery": {"work*": {"visibility_timeout": 1.0, "max_attempts": 50}}}
MakeLayer = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[RedisChannelLayer] = []

    def make(*ports: int, **config: Any) -> RedisChannelLayer:
        hosts = [("127.0.0.1", port) for port in ports]
        made.append(RedisChannelLayer(hosts, **{"capacity": 10_000, **DELIVERY, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@contextlib.asynccontextmanager
async def worker(layer: Any, channel: str) -> AsyncIterator[list[Mark]]:
    """Takes messages on lease and finishes each."""
    marks: list[Mark] = []

    async def work() -> None:
        while True:
            message, lease = await layer.receive_leased(channel)
            async with lease:
                marks.append((message["publisher"], message["number"]))

    async with beside(work()):
        yield marks


async def test_killed_connections_lose_nothing(server: OwnServer, make_layer: MakeLayer) -> None:
    sender, log = make_layer(server.port), PublisherLog("p")
    first, second = make_layer(server.port), make_layer(server.port)
    async with worker(first, "work") as one, worker(second, "work") as two:
        async with beside(kill_connections(server.port, 0.2)):
            await publish(sender, log, 600, channel="work", pause=every(10, 0.01))
        await until(lambda: len({*one, *two}) == 600, "all messages")
    verdict = judge_queue([log], {"all": [*one, *two]})
    assert not verdict.lost, verdict
    assert not verdict.strange, verdict
    # Twice is what was in hand, or its word that it was done, when a connection went.
    assert len(verdict.doubled) < 60, verdict


async def test_what_a_dead_reader_had_comes_to_another(
    server: OwnServer, make_layer: MakeLayer
) -> None:
    sender, dying, living = (make_layer(server.port) for _ in range(3))
    log = PublisherLog("p")
    await publish(sender, log, 3, channel="work")
    for number in range(2):
        message, _ = await dying.receive_leased("work")
        assert message["number"] == number
    # It is gone without a word.
    dying.node.link.abandon()
    async with worker(living, "work") as marks:
        await until(lambda: len(marks) == 3, "what it had")
    assert sorted(marks) == [("p", 0), ("p", 1), ("p", 2)]


async def test_leases_and_delays_on_several_servers(make_layer: MakeLayer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(tmp_path / str(n))) for n in range(2)]
        ports = [server.port for server in servers]
        near, far = make_layer(*ports), make_layer(*ports)
        for number in range(8):
            await near.send(f"work-{number}", {"type": "x", "number": number}, delay=0.1)
        for number in range(8):
            async with asyncio.timeout(10):
                message, lease = await far.receive_leased(f"work-{number}")
            assert message["number"] == number
            assert await lease.ack()
        await near.close()
        await far.close()
