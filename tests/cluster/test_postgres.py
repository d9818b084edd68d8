"""The layer on PostgreSQL while connections break and the server dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest

from channels.exceptions import ChannelLayerUnavailable
from channels.layers import PostgresChannelLayer
from tests.cluster.history import Outcome, PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.cluster.proxy import ChaosProxy
from tests.cluster.traffic import Reader, every, publish, quiet, until

BACKEND = "channels.layers.PostgresChannelLayer"
MakeLayer = Callable[..., Any]


@pytest.fixture(scope="module")
def folder() -> Iterator[PostgresFolder]:
    folder = PostgresFolder()
    yield folder
    folder.remove()


@pytest.fixture(scope="module")
def shared(folder: PostgresFolder) -> Iterator[PostgresServer]:
    with folder.server() as server:
        yield server


@pytest.fixture
def server(shared: PostgresServer) -> PostgresServer:
    """Running, and without what former tests left."""
    if not shared.is_running:
        shared.start()
    shared.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return shared


@pytest.fixture
async def make_layer() -> AsyncIterator[MakeLayer]:
    made: list[PostgresChannelLayer] = []

    def make(dsn: str, **config: Any) -> PostgresChannelLayer:
        made.append(PostgresChannelLayer(dsn, **{"capacity": 10_000, **config}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


def through(proxy: ChaosProxy) -> str:
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"


@contextlib.asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """Run something while the body runs."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def end_connections(server: PostgresServer, every_seconds: float) -> None:
    """Have the server end all connections, again and again."""
    while True:
        await asyncio.sleep(every_seconds)
        await asyncio.to_thread(server.end_connections)


async def test_three_processes_on_one_channel_get_each_message_once(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.dsn), PublisherLog("p")
    config = {"dsn": server.dsn}
    async with (
        Member(BACKEND, config, "queue", "work") as first,
        Member(BACKEND, config, "queue", "work") as second,
        Member(BACKEND, config, "queue", "work") as third,
    ):
        await publish(layer, log, 600, channel="work")
        readers = {"1": first.marks, "2": second.marks, "3": third.marks}
        await until(lambda: sum(map(len, readers.values())) >= 600, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert verdict.is_clean, verdict
    assert all(len(marks) > 50 for marks in readers.values()), "the work is shared"


async def test_connections_ended_all_the_time_lose_nothing(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    # On a busy machine connecting takes longer than the pause between two ends.
    near, far = (make_layer(server.dsn, send_timeout=30) for _ in range(2))
    log, other = PublisherLog("near"), PublisherLog("far")
    async with (
        Reader(near, group="room") as first,
        Reader(far, group="room") as second,
        Member(BACKEND, {"dsn": server.dsn, "capacity": 10_000}, "group", "room") as third,
    ):
        async with beside(end_connections(server, 0.15)):
            await asyncio.gather(
                publish(near, log, 400, group="room", pause=every(10, 0.02)),
                publish(far, other, 400, group="room", pause=every(10, 0.02)),
            )
        readers = {"near": first.marks, "far": second.marks, "process": third.marks}
        await until(lambda: min(map(len, readers.values())) >= 800, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_group([log, other], readers)
    assert verdict.is_clean, verdict
    assert first.marks == second.marks == third.marks, "one order for all"
    assert near.statistics()["disconnected"] >= 5
    assert near.statistics()["given_up"] == 0, "no send has failed"


async def test_queues_lose_and_double_nothing_when_connections_are_cut(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    log = PublisherLog("p")
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        dsn = through(proxy)
        # On a busy machine connecting takes longer than the pause between two cuts.
        sender, *workers = (make_layer(dsn, send_timeout=30) for _ in range(3))

        async def cut() -> None:
            while True:
                await asyncio.sleep(0.2)
                proxy.cut()

        async with (
            Reader(workers[0], channel="work") as first,
            Reader(workers[1], channel="work") as second,
        ):
            async with beside(cut()):
                await publish(sender, log, 400, channel="work", pause=every(10, 0.01))
            readers = {"1": first.marks, "2": second.marks}
            await until(lambda: sum(map(len, readers.values())) >= 400, "all messages")
            await quiet(list(readers.values()), 0.2)
        for layer in (sender, *workers):
            assert layer.statistics()["disconnected"] >= 2
            await layer.close()
    verdict = judge_queue([log], readers)
    assert not verdict.lost, verdict
    assert not verdict.doubled, verdict
    assert not verdict.strange, verdict


async def test_a_server_that_crashes_loses_only_what_lay_unread(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    near, far = make_layer(server.dsn, send_timeout=10), make_layer(server.dsn, send_timeout=10)
    log = PublisherLog("p")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    unread = 0

    async def crash_and_recover() -> None:
        nonlocal unread
        await until(lambda: len(log.outcomes) > 500, "traffic")
        await asyncio.to_thread(server.kill)
        unread = len(log.outcomes) - min(len(first.marks), len(second.marks))
        await asyncio.to_thread(server.start)

    async with (
        Reader(near, group="room") as first,
        Reader(far, group="room") as second,
    ):
        await asyncio.gather(
            publish(near, log, 1500, group="room", pause=every(10, 0.004)), crash_and_recover()
        )
        await until(lambda: second.marks[-1:] == [("p", 1499)], "the last")
        await quiet([first.marks, second.marks], 0.2)
    verdict = judge_group([log], {"near": first.marks, "far": second.marks})
    assert [verdict.doubled, verdict.reordered, verdict.strange] == [[], [], []], verdict
    assert len(verdict.lost) <= 2 * unread, f"{verdict}; {unread} lay unread"
    assert not log.marks(Outcome.UNKNOWN)
    assert gaps == [None]


async def test_a_logged_layer_outlives_a_crash(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.dsn, logged=True, send_timeout=10), PublisherLog("p")
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)

    async def crash_and_recover() -> None:
        await until(lambda: len(log.outcomes) > 100, "traffic")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    await layer.send("work", {"type": "x", "publisher": "before", "number": 0})
    async with Reader(layer, group="room") as reader:
        await asyncio.gather(
            publish(layer, log, 300, group="room", pause=every(10, 0.004)), crash_and_recover()
        )
        await until(lambda: len(reader.marks) >= 300, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean
    assert gaps == []
    assert (await layer.receive("work"))["publisher"] == "before"


async def test_a_server_that_is_not_there_at_first(
    folder: PostgresFolder, server: PostgresServer, make_layer: MakeLayer
) -> None:
    server.stop()
    layer = make_layer(server.dsn, send_timeout=0.2)
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


@pytest.mark.parametrize("fault", ["swallow", "stall"])
async def test_a_connection_that_is_silently_dead_is_found_out(
    server: PostgresServer, make_layer: MakeLayer, fault: str
) -> None:
    direct = make_layer(server.dsn)
    async with ChaosProxy(("127.0.0.1", server.port)) as proxy:
        layer = make_layer(through(proxy), answer_timeout=0.4, poll_interval=0.1, send_timeout=5)
        log, before = PublisherLog("p"), proxy.accepted
        async with Reader(layer, group="room") as reader, Reader(direct, group="room") as other:
            await publish(layer, log, 10, group="room")
            await until(lambda: len(reader.marks) >= 10, "the first")
            getattr(proxy, fault)()
            await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
            # What is sent meanwhile waits in the log.
            await publish(direct, log, 10, group="room")
            proxy.heal()
            proxy.cut()
            await until(lambda: proxy.accepted > before and len(reader.marks) >= 20, "the rest")
            await publish(layer, log, 10, group="room")
            await until(lambda: len(reader.marks) >= 30 and len(other.marks) >= 30, "all")
        assert judge_group([log], {"far": reader.marks, "near": other.marks}).is_clean
        await layer.close()


async def test_a_paused_transaction_of_somebody_else_holds_up_nobody(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(server.dsn), PublisherLog("p")
    async with (
        Reader(layer, group="room") as reader,
        await psycopg.AsyncConnection.connect(server.dsn) as connection,
    ):
        await connection.execute("SELECT count(*) FROM channels_layer_message")
        await connection.execute("CREATE TABLE other (n int)")
        await publish(layer, log, 100, group="room")
        await until(lambda: len(reader.marks) >= 100, "all")
        await connection.rollback()
    assert judge_group([log], {"r": reader.marks}).is_clean


async def test_a_flood_is_bounded_and_told(server: PostgresServer, make_layer: MakeLayer) -> None:
    layer = make_layer(server.dsn, max_messages=200, send_timeout=10)
    await layer.new_channel()
    other = make_layer(server.dsn)
    channel = await other.new_channel()
    await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for _ in range(500)))
    ((rows,),) = server.run("SELECT count(*) FROM channels_layer_message")
    assert rows == 200
    assert layer.statistics()["transport_dropped_log_full"] == 300
    with pytest.raises(Exception, match="max_messages=200"):
        await layer.send(channel, {"type": "x"})


async def test_expired_messages_are_cleaned_away(
    server: PostgresServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(server.dsn, expiry=0.2, clean_interval=0.1)
    for _ in range(20):
        await layer.group_send("room", {"type": "x"})
        await layer.send("work", {"type": "x"})

    def rows(table: str) -> int:
        return int(str(server.run(f"SELECT count(*) FROM channels_layer_{table}")[0][0]))

    await until(lambda: rows("message") == 0 and rows("queue") == 0, "empty tables")
    await layer.close()
    assert rows("node") == 0
