"""Sends that join a transaction of the caller's."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction

from channels.backends.postgres import PostgresChannelLayer
from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.transactions import atomic_group_send, atomic_send
from tests.layers.databases import (
    alias,
    drop_postgres_tables,
    postgres_alias,
    postgres_dsn,
    postgres_tables,
)

__all__ = ["alias", "postgres_alias", "postgres_dsn", "postgres_tables"]

MakeLayer = Callable[..., PostgresChannelLayer]
PATIENCE = 10.0


@pytest.fixture
async def make_layer(postgres_dsn: str, postgres_tables: str) -> AsyncIterator[MakeLayer]:
    made = []
    prefix = uuid.uuid4().hex

    def make(**config: Any) -> PostgresChannelLayer:
        made.append(
            PostgresChannelLayer(
                postgres_dsn, **{"tables": postgres_tables, "prefix": prefix, **config}
            )
        )
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def member(layer: PostgresChannelLayer) -> str:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


async def read(layer: PostgresChannelLayer, channel: str) -> str:
    async with asyncio.timeout(PATIENCE):
        return str((await layer.receive(channel))["type"])


@pytest.mark.parametrize("keys", [None, ["secret"]], ids=["open", "sealed"])
async def test_rolled_back_is_not_sent_and_committed_is(
    make_layer: MakeLayer, postgres_dsn: str, keys: list[str] | None
) -> None:
    layer, other = (make_layer(symmetric_encryption_keys=keys) for _ in range(2))
    channels = [(layer, await member(layer)), (other, await member(other))]

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_group_send(connection, "room", {"type": "lost"})
            layer.atomic_send(connection, "work", {"type": "lost"})
            layer.atomic_send(connection, channels[1][1], {"type": "lost"})
            connection.rollback()
            layer.atomic_group_send(connection, "room", {"type": "group"})
            layer.atomic_send(connection, channels[0][1], {"type": "node"})
            layer.atomic_send(connection, "work", {"type": "queue"})

    await asyncio.to_thread(work)
    for each, channel in channels:
        assert await read(each, channel) == "group"
    assert await read(layer, channels[0][1]) == "node"
    assert await read(other, "work") == "queue"
    await layer.group_send("room", {"type": "last"})
    for each, channel in channels:
        assert await read(each, channel) == "last", "nothing came twice"


async def test_what_commits_late_has_its_place_then_in_one_order_for_all(
    make_layer: MakeLayer, postgres_dsn: str
) -> None:
    layer, other = make_layer(), make_layer()
    channels = [(each, await member(each)) for each in (layer, other)]
    written, commit = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_group_send(connection, "room", {"type": "late"})
            layer.atomic_group_send(connection, "room", {"type": "later"})
            loop.call_soon_threadsafe(written.set)
            commit.wait(PATIENCE)

    working = asyncio.create_task(asyncio.to_thread(work))
    await written.wait()
    for number in range(20):
        await other.group_send("room", {"type": f"{number}"})
    for each, channel in channels:
        assert [await read(each, channel) for _ in range(20)] == [str(n) for n in range(20)]
    commit.set()
    await working
    for each, channel in channels:
        assert [await read(each, channel) for _ in range(2)] == ["late", "later"]


async def test_in_djangos_transactions(make_layer: MakeLayer, postgres_alias: str) -> None:
    layer = make_layer(poll_interval=10.0)
    channel = await member(layer)

    def work() -> None:
        with transaction.atomic(using=postgres_alias):
            atomic_group_send("room", {"type": "lost"}, using=postgres_alias, layer=layer)
            transaction.set_rollback(True, using=postgres_alias)
        with transaction.atomic(using=postgres_alias):
            with transaction.atomic(using=postgres_alias):
                atomic_send(channel, {"type": "lost"}, using=postgres_alias, layer=layer)
                transaction.set_rollback(True, using=postgres_alias)
            atomic_group_send("room", {"type": "kept"}, using=postgres_alias, layer=layer)
        connections[postgres_alias].close()

    await asyncio.to_thread(work)
    # The wake-up after the commit brings it, long before the next look.
    assert await read(layer, channel) == "kept"


async def test_a_process_that_dies_before_the_wake_up_has_sent(
    make_layer: MakeLayer, postgres_alias: str
) -> None:
    layer = make_layer(poll_interval=0.1)
    channel = await member(layer)

    def work() -> None:
        with transaction.atomic(using=postgres_alias):
            atomic_group_send("room", {"type": "x"}, using=postgres_alias, layer=layer)
            connections[postgres_alias].run_on_commit.clear()
        connections[postgres_alias].close()

    await asyncio.to_thread(work)
    assert await read(layer, channel) == "x"


async def test_a_process_that_only_sends_makes_the_tables(
    make_layer: MakeLayer, postgres_dsn: str
) -> None:
    tables = f"t_{uuid.uuid4().hex[:16]}"
    layer, reader = make_layer(tables=tables), make_layer(tables=tables)

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_send(connection, "work", {"type": "x"})

    try:
        await asyncio.to_thread(work)
        assert await read(reader, "work") == "x"
    finally:
        await layer.close()
        await reader.close()
        with psycopg.connect(postgres_dsn) as connection:
            drop_postgres_tables(connection, tables)


async def test_a_process_that_only_sends_goes_by_the_servers_clock(
    make_layer: MakeLayer, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make_layer()
    await reader.new_channel()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    layer = make_layer()

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_send(connection, "work", {"type": "x"})

    await asyncio.to_thread(work)
    assert await read(reader, "work") == "x"


async def test_full_channels_and_queue_members(make_layer: MakeLayer, postgres_dsn: str) -> None:
    layer = make_layer(capacity=2)
    await layer.group_add("room", "work")

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_group_send(connection, "room", {"type": "one"})
            layer.atomic_send(connection, "work", {"type": "two"})
            # What went to the group counts, too.
            with pytest.raises(ChannelFull):
                layer.atomic_send(connection, "work", {"type": "three"})
            layer.atomic_group_send(connection, "room", {"type": "passed over"})

    await asyncio.to_thread(work)
    assert [await read(layer, "work") for _ in range(2)] == ["one", "two"]
    await layer.send("work", {"type": "last"})
    assert await read(layer, "work") == "last"


async def test_a_channel_that_is_read_at_least_once(
    make_layer: MakeLayer, postgres_dsn: str
) -> None:
    layer = make_layer(expiry=0.2, delivery={"work": "at-least-once"})

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            layer.atomic_send(connection, "work", {"type": "lost"})
            connection.rollback()
            layer.atomic_send(connection, "work", {"type": "kept"})

    await asyncio.to_thread(work)
    # What goes to such a channel does not expire.
    await asyncio.sleep(0.3)
    for attempt in (1, 2):
        async with asyncio.timeout(PATIENCE):
            message, lease = await layer.receive_leased("work")
        assert (message, lease.attempts) == ({"type": "kept"}, attempt)
        assert await (lease.retry(delay=0) if attempt == 1 else lease.ack())


@pytest.mark.parametrize("keys", [None, ["secret"]], ids=["open", "sealed"])
async def test_a_delay(make_layer: MakeLayer, postgres_dsn: str, keys: list[str] | None) -> None:
    layer = make_layer()
    own = await layer.new_channel()
    began = time.monotonic()

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            for channel in ("work", own):
                layer.atomic_send(connection, channel, {"type": "lost"}, delay=0.1)
            connection.rollback()
            for channel in ("work", own):
                layer.atomic_send(connection, channel, {"type": "late"}, delay=0.5)
                layer.atomic_send(connection, channel, {"type": "now"})

    await asyncio.to_thread(work)
    for channel in ("work", own):
        assert [await read(layer, channel) for _ in range(2)] == ["now", "late"]
    assert time.monotonic() - began >= 0.45


async def test_what_commits_after_it_was_due_comes_right_after(
    make_layer: MakeLayer, postgres_alias: str
) -> None:
    layer = make_layer()
    await layer.new_channel()
    reading = asyncio.create_task(read(layer, "work"))

    def work() -> None:
        with transaction.atomic(using=postgres_alias):
            atomic_send("work", {"type": "x"}, using=postgres_alias, layer=layer, delay=0.05)
            # The process has looked in vain by then, and will look again in five seconds.
            time.sleep(0.4)
            assert not reading.done()
        connections[postgres_alias].close()

    await asyncio.to_thread(work)
    began = time.monotonic()
    assert await reading == "x"
    assert time.monotonic() - began < 3


async def test_delays_that_cannot_be(make_layer: MakeLayer, postgres_dsn: str) -> None:
    layer = make_layer(max_delayed=1)

    def work() -> None:
        with psycopg.connect(postgres_dsn) as connection:
            with pytest.raises(ValueError, match="expected seconds from 0 to"):
                layer.atomic_send(connection, "work", {"type": "x"}, delay=-1)
            layer.atomic_send(connection, "work", {"type": "x"}, delay=60)
            with pytest.raises(ChannelFull, match="max_delayed"):
                layer.atomic_send(connection, "work", {"type": "x"}, delay=60)

    await asyncio.to_thread(work)
    await layer.flush()


def test_another_kind_of_database_is_refused() -> None:
    layer = PostgresChannelLayer("dbname=x")
    with pytest.raises(InvalidChannelLayerError, match="sqlite"):
        layer.atomic_send(connections["default"], "work", {"type": "x"})


async def test_names_are_checked(make_layer: MakeLayer) -> None:
    layer = make_layer()
    with pytest.raises(TypeError, match="Channel name"):
        layer.atomic_send(connections["default"], "a b", {"type": "x"})
    with pytest.raises(TypeError, match="Group name"):
        layer.atomic_group_send(connections["default"], "a b", {"type": "x"})
