"""The layer in a database of Django's while connections break and the server dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from channels.database import DatabaseChannelLayer
from channels.exceptions import ChannelLayerUnavailable
from tests.cluster.history import PublisherLog, judge_group, judge_queue
from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.cluster.traffic import Reader, every, publish, quiet, until
from tests.layers.databases import alias

__all__ = ["alias"]

MakeLayer = Callable[..., DatabaseChannelLayer]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    folder = PostgresFolder()
    with folder.server() as server:
        yield server
    folder.remove()


@pytest.fixture
async def make_layer(server: PostgresServer, alias: Callable[..., str]) -> AsyncIterator[MakeLayer]:
    if not server.is_running:
        server.start()
    server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    alias("own", **server.django)
    made: list[DatabaseChannelLayer] = []

    def make(**config: Any) -> DatabaseChannelLayer:
        made.append(DatabaseChannelLayer("own", **{"capacity": 10_000, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


@contextlib.asynccontextmanager
async def ending_connections(server: PostgresServer) -> AsyncIterator[None]:
    """Have the server end all connections, again and again, while the body runs."""

    async def work() -> None:
        while True:
            await asyncio.sleep(0.25)
            await asyncio.to_thread(server.end_connections)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def test_connections_ended_all_the_time_lose_nothing(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    near, far = make_layer(send_timeout=5), make_layer(send_timeout=5)
    log, other = PublisherLog("near"), PublisherLog("far")
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        async with ending_connections(server):
            await asyncio.gather(
                publish(near, log, 150, group="room", pause=every(5, 0.02)),
                publish(far, other, 150, group="room", pause=every(5, 0.02)),
            )
        readers = {"near": first.marks, "far": second.marks}
        await until(lambda: min(map(len, readers.values())) >= 300, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_group([log, other], readers)
    assert verdict.is_clean, verdict
    assert first.marks == second.marks, "one order for all"
    assert near.statistics()["disconnected"] >= 2


async def test_queues_lose_and_double_nothing_when_connections_end(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    sender, *workers = (make_layer(send_timeout=5) for _ in range(3))
    log = PublisherLog("p")
    async with (
        Reader(workers[0], channel="work") as first,
        Reader(workers[1], channel="work") as second,
    ):
        async with ending_connections(server):
            await publish(sender, log, 200, channel="work", pause=every(5, 0.02))
        readers = {"1": first.marks, "2": second.marks}
        await until(lambda: sum(map(len, readers.values())) >= 200, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert [verdict.lost, verdict.doubled, verdict.strange] == [[], [], []], verdict


async def test_a_server_that_crashes_loses_nothing(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(send_timeout=10), PublisherLog("p")
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)

    async def crash_and_recover() -> None:
        await until(lambda: len(log.outcomes) > 50, "traffic")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    await layer.send("work", {"type": "before"})
    async with Reader(layer, group="room") as reader:
        await asyncio.gather(
            publish(layer, log, 150, group="room", pause=every(5, 0.01)), crash_and_recover()
        )
        await until(lambda: len(reader.marks) >= 150, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean
    assert gaps == []
    assert await layer.receive("work") == {"type": "before"}


async def test_a_server_that_is_not_there_at_first(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    server.stop()
    layer = make_layer(send_timeout=0.3)
    worker = asyncio.create_task(layer.receive("work"))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
        await layer.group_send("room", {"type": "x"})
    assert not worker.done()
    await asyncio.to_thread(server.start)
    await until(lambda: layer.node.link.outbox.is_open, "the connection")
    await layer.group_send("room", {"type": "y"})
    await layer.send("work", {"type": "z"})
    async with asyncio.timeout(5):
        assert await layer.receive(channel) == {"type": "y"}
        assert await worker == {"type": "z"}


async def test_a_flood_is_bounded_and_told(make_layer: MakeLayer, server: PostgresServer) -> None:
    layer = make_layer(max_messages=100, send_timeout=10)
    await layer.new_channel()
    await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for _ in range(150)))
    assert server.run("SELECT count(*) FROM channels_layer_message") == [(100,)]
    assert layer.statistics()["transport_dropped_log_full"] == 50


async def test_expired_messages_are_cleaned_away(
    make_layer: MakeLayer, server: PostgresServer
) -> None:
    layer = make_layer(expiry=0.2, clean_interval=0.1)
    for _ in range(5):
        await layer.group_send("room", {"type": "x"})
        await layer.send("work", {"type": "x"})

    def rows(table: str) -> int:
        return int(str(server.run(f"SELECT count(*) FROM channels_layer_{table}")[0][0]))

    await until(lambda: rows("message") == 0 and rows("queue") == 0, "empty tables")
    await layer.close()
    assert rows("node") == 0
