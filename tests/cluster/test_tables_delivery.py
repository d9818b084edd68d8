"""Leases and delays in tables while connections break and the server dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from channels.database import DatabaseChannelLayer
from channels.layers.postgres import PostgresChannelLayer
from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.cluster.traffic import beside, until
from tests.layers.databases import alias

__all__ = ["alias"]

MakeLayer = Callable[..., Any]
DELIVERY = {"jobs": {"visibility_timeout": 1.0, "max_attempts": 40, "retry_delay": 0.05}}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    folder = PostgresFolder()
    with folder.server() as server:
        yield server
    folder.remove()


@pytest.fixture(params=["postgres", "database"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make_layer(
    kind: str, server: PostgresServer, alias: Callable[..., str]
) -> AsyncIterator[MakeLayer]:
    if not server.is_running:
        server.start()
    server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    alias("own", **server.django)
    made: list[Any] = []

    def make(**config: Any) -> Any:
        # As long as a busy machine needs: no send may be given up.
        config = {"capacity": 10_000, "delivery": DELIVERY, "send_timeout": 30, **config}
        if kind == "postgres":
            made.append(PostgresChannelLayer(server.dsn, **config))
        else:
            made.append(DatabaseChannelLayer("own", **config))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def work(layer: Any, done: Counter[int]) -> None:
    """Finish what comes, until cancelled."""
    while True:
        message, lease = await layer.receive_leased("jobs")
        async with lease:
            done[message["number"]] += 1


async def end_connections(server: PostgresServer, layers: list[Any]) -> None:
    """Have the server end all connections, each time that all processes are connected."""
    while True:
        for layer in layers:
            await until(lambda layer=layer: layer.node.link.outbox.is_open, "up", 30)  # type: ignore[misc]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.end_connections)


async def test_ended_connections_lose_no_lease_and_no_delayed_message(
    make_layer: MakeLayer, server: PostgresServer
) -> None:
    count, done = 150, Counter[int]()
    layers = [make_layer() for _ in range(3)]
    await asyncio.gather(*(layer.new_channel() for layer in layers))
    workers = [work(layer, done) for layer in layers[1:] for _ in range(4)]
    async with beside(end_connections(server, layers), *workers):
        for number in range(count):
            await layers[0].send("jobs", {"type": "x", "number": number}, delay=number % 2 * 0.3)
        await until(lambda: layers[0].statistics().get("disconnected", 0) >= 3, "cuts", 30)
        await until(lambda: len(done) == count, "all are done", 30)
    # Doubled: what was done when its lease ran out before the word of it could be said.
    assert sum(done.values()) - count <= 40
    assert server.run("SELECT count(*) FROM channels_layer_held WHERE place IS NULL") == [(0,)]


async def test_a_crash_of_the_server(
    make_layer: MakeLayer, server: PostgresServer, kind: str
) -> None:
    logged = {"logged": True} if kind == "postgres" else {}
    layer, other = make_layer(**logged), make_layer(**logged)
    await layer.send("jobs", {"type": "x", "number": 0})
    _, lease = await layer.receive_leased("jobs")
    await layer.send("jobs", {"type": "x", "number": 1}, delay=0.5)
    await layer.send("jobs", {"type": "x", "number": 2})
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    done = Counter[int]()
    async with beside(work(other, done)):
        await until(lambda: done.keys() == {0, 1, 2}, "all three", 30)
    assert not await lease.ack(), "it ran out"


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_crash_of_a_server_with_unlogged_tables(
    make_layer: MakeLayer, server: PostgresServer
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"type": "x", "number": 0})
    _, lease = await layer.receive_leased("jobs")
    await layer.send("jobs", {"type": "x", "number": 1}, delay=0.5)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await layer.send("jobs", {"type": "x", "number": 2})
    done = Counter[int]()
    async with beside(work(layer, done)):
        await until(lambda: 2 in done, "what was sent afterwards", 30)
    assert done.keys() == {2}, "the others went with the tables"
    assert not await lease.ack()
    assert server.run("SELECT count(*) FROM channels_layer_held") == [(0,)]
