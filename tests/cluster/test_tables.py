"""Layers whose log is a table: its bound, its cleaning, and other people's transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.cluster.history import PublisherLog, judge_group
from tests.cluster.postgres import PostgresServer
from tests.cluster.sites import Site
from tests.cluster.traffic import Reader, publish, until

MakeLayer = Callable[..., Any]
pytestmark = pytest.mark.parametrize("site", ["postgres", "database"], indirect=True)


def tables(site: Site) -> str:
    """What the names of its tables begin with."""
    return str(site.config().get("tables", "channels_layer"))


def rows(site: Site, table: str) -> int:
    assert isinstance(site.server, PostgresServer)
    return int(str(site.server.run(f"SELECT count(*) FROM {tables(site)}_{table}")[0][0]))


async def test_a_paused_transaction_of_somebody_else_holds_up_nobody(
    site: Site, postgres: PostgresServer, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(), PublisherLog("p")
    async with (
        Reader(layer, group="room") as reader,
        await psycopg.AsyncConnection.connect(postgres.dsn) as connection,
    ):
        await connection.execute(f"SELECT count(*) FROM {tables(site)}_message".encode())
        await connection.execute("CREATE TABLE other (n int)")
        await publish(layer, log, 100, group="room")
        await until(lambda: len(reader.marks) >= 100, "all")
        await connection.rollback()
    assert judge_group([log], {"r": reader.marks}).is_clean


async def test_a_flood_is_bounded_and_told(site: Site, make_layer: MakeLayer) -> None:
    layer, other = make_layer(max_messages=200), make_layer()
    await layer.new_channel()
    channel = await other.new_channel()
    await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for _ in range(500)))
    assert rows(site, "message") == 200
    assert layer.statistics()["transport_dropped_log_full"] == 300
    with pytest.raises(Exception, match="max_messages=200"):
        await layer.send(channel, {"type": "x"})


async def test_expired_messages_are_cleaned_away(site: Site, make_layer: MakeLayer) -> None:
    layer = make_layer(expiry=0.2, clean_interval=0.1)
    for _ in range(20):
        await layer.group_send("room", {"type": "x"})
        await layer.send("work", {"type": "x"})
    await until(lambda: rows(site, "message") == 0 and rows(site, "queue") == 0, "empty tables")
    await layer.close()
    assert rows(site, "node") == 0


async def test_a_process_that_was_paused_is_told_what_it_missed(
    site: Site, make_layer: MakeLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, other = make_layer(), make_layer(expiry=0.3, clean_interval=0.1)
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    store, resumed = layer.node.transport.session._store, asyncio.Event()
    wait = store.wait

    async def pause() -> Any:
        await resumed.wait()
        return await wait()

    monkeypatch.setattr(store, "wait", pause)
    await layer.group_send("room", {"type": "awake"})
    for _ in range(3):
        await other.group_send("room", {"type": "lost"})
    await until(lambda: rows(site, "message") == 1, "what expired to be cleaned away")
    assert not gaps
    resumed.set()
    assert await layer.receive(channel) == {"type": "awake"}
    await until(lambda: bool(gaps), "the gap")
    await layer.group_send("room", {"type": "y"})
    assert await layer.receive(channel) == {"type": "y"}
    assert gaps == [None]


async def test_tables_emptied_under_a_running_layer(site: Site, make_layer: MakeLayer) -> None:
    layer = make_layer()
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    assert isinstance(site.server, PostgresServer)
    found = site.server.run(f"SELECT tablename FROM pg_tables WHERE tablename ~ '^{tables(site)}_'")
    names = ", ".join(str(name) for (name,) in found)
    site.server.run(f"TRUNCATE {names} RESTART IDENTITY")
    await until(lambda: bool(gaps), "the gap")
    await layer.group_send("room", {"type": "x"})
    assert await layer.receive(channel) == {"type": "x"}
    assert gaps == [None]
