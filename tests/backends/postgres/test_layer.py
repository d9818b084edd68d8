"""What only the layer on PostgreSQL does."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from channels.backends.postgres import PostgresChannelLayer
from channels.backends.postgres.schema import schema_sql
from channels.backends.postgres.session import PAGE
from channels.exceptions import ChannelLayerUnavailable
from tests.layers.databases import postgres_dsn

__all__ = ["postgres_dsn"]

MakeLayer = Callable[..., PostgresChannelLayer]
PATIENCE = 10.0


@pytest.fixture
async def make_layer(postgres_dsn: str) -> AsyncIterator[MakeLayer]:
    """In a schema of the test's own."""
    made = []
    schema = f"t_{uuid.uuid4().hex[:16]}"
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        await connection.execute(f"CREATE SCHEMA {schema}".encode())

        def make(**config: Any) -> PostgresChannelLayer:
            made.append(PostgresChannelLayer(postgres_dsn, **{"schema": schema, **config}))
            return made[-1]

        yield make
        for layer in made:
            await layer.close()
        await connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


async def read(layer: PostgresChannelLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive(channel)


async def rows(dsn: str, query: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query.encode())
        return await cursor.fetchall() if cursor.description else []


async def test_many_processes_make_the_tables_at_once(make_layer: MakeLayer) -> None:
    layers = [make_layer() for _ in range(5)]
    channels = await asyncio.gather(*(layer.new_channel() for layer in layers))
    for layer, channel in zip(layers, channels, strict=True):
        await layer.group_add("room", channel)
    await layers[0].group_send("room", {"type": "x"})
    for layer, channel in zip(layers, channels, strict=True):
        assert await read(layer, channel) == {"type": "x"}


@pytest.mark.parametrize("logged", [True, False])
async def test_tables_that_someone_else_made(
    make_layer: MakeLayer, postgres_dsn: str, logged: bool
) -> None:
    layer = make_layer(create_schema=False, logged=logged)
    schema = layer.postgres_options.schema
    await rows(postgres_dsn, schema_sql(schema=schema, logged=logged))
    await layer.send("work", {"type": "x"})
    assert await read(layer, "work") == {"type": "x"}
    found = await rows(
        postgres_dsn,
        "SELECT relpersistence FROM pg_class "
        f"WHERE oid = '{schema}.channels_layer_message'::regclass",
    )
    assert found == [("p" if logged else "u",)]


async def test_missing_tables_are_told_with_what_to_do(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "channels.layers")
    layer = make_layer(create_schema=False, send_timeout=0.3)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("work", {"type": "x"})
    assert "schema_sql()" in caplog.text
    assert caplog.text.count("out of reach") == 1


async def test_tables_dropped_under_a_running_layer_are_made_again(
    make_layer: MakeLayer, postgres_dsn: str
) -> None:
    layer = make_layer(poll_interval=0.05)
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    schema = layer.postgres_options.schema
    await rows(postgres_dsn, f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
    await layer.group_send("room", {"type": "x"})
    assert await read(layer, channel) == {"type": "x"}
    async with asyncio.timeout(PATIENCE):
        while not gaps:  # noqa: ASYNC110 - told on another thread
            await asyncio.sleep(0.01)
    assert gaps == [None]


async def test_layers_in_the_same_tables_are_kept_apart_by_their_prefix(
    make_layer: MakeLayer,
) -> None:
    one, two = make_layer(prefix="one"), make_layer(prefix="two")
    for layer in (one, two):
        await layer.group_add("room", "members")
    await one.group_send("room", {"type": "one"})
    await two.send("work", {"type": "two"})
    await one.flush()
    assert await read(two, "work") == {"type": "two"}
    await two.group_send("room", {"type": "still a member"})
    assert await read(two, "members") == {"type": "still a member"}


async def test_a_message_sent_before_joining_does_not_arrive(make_layer: MakeLayer) -> None:
    sender, reader = make_layer(), make_layer()
    channel = await reader.new_channel()
    for number in range(30):
        group = f"room{number}"
        await sender.group_send(group, {"type": "before"})
        await reader.group_add(group, channel)
        await sender.group_send(group, {"type": "after"})
        assert await read(reader, channel) == {"type": "after"}


async def test_more_groups_and_messages_than_a_page_has(make_layer: MakeLayer) -> None:
    # All at once, on a machine that may be busy with other tests.
    sender, reader = (make_layer(capacity=1000, send_timeout=30) for _ in range(2))
    channel = await reader.new_channel()
    count = PAGE + 50
    await asyncio.gather(*(reader.group_add(f"room{each}", channel) for each in range(count)))
    await asyncio.gather(
        *(sender.group_send(f"room{each}", {"type": "x", "n": each}) for each in range(count))
    )
    # One to each group: there is no order between groups.
    got = sorted([(await read(reader, channel))["n"] for _ in range(count)])
    assert got == list(range(count))


async def test_large_messages_stay_in_order_among_small_ones(make_layer: MakeLayer) -> None:
    sender, reader = make_layer(), make_layer()
    channel = await reader.new_channel()
    await reader.group_add("room", channel)
    await sender.new_channel()
    texts = ["x" * size for size in (1, 3_000_000, 10, 100_000, 2_000_000, 3_900_000, 1)]
    await asyncio.gather(*(sender.group_send("room", {"type": "x", "t": t}) for t in texts))
    assert [(await read(reader, channel))["t"] for _ in texts] == texts


async def test_a_send_to_a_process_that_has_gone_is_dropped_and_counted(
    make_layer: MakeLayer,
) -> None:
    layer, gone = make_layer(), make_layer()
    channel = await gone.new_channel()
    await gone.close()
    await layer.send(channel, {"type": "x"})
    assert layer.statistics()["dropped_gone"] == 1


async def test_two_connections_for_a_process(make_layer: MakeLayer, postgres_dsn: str) -> None:
    name = uuid.uuid4().hex
    layer = PostgresChannelLayer(
        f"{postgres_dsn}&application_name={name}", schema=make_layer().postgres_options.schema
    )
    await layer.new_channel()
    reader = asyncio.create_task(layer.receive("work"))
    await asyncio.gather(*(layer.group_send("room", {"type": "x"}) for _ in range(100)))
    found = await rows(
        postgres_dsn, f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
    )
    assert found == [(2,)]
    assert layer.statistics()["transport_batches"] < 50, "calls go in batches"
    reader.cancel()
    await asyncio.wait([reader])
    await layer.close()


@pytest.mark.parametrize("name", ["null", "NULL", "a.b-c_d", "9"])
async def test_names_that_mean_something_to_sql(make_layer: MakeLayer, name: str) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add(name, channel)
    await layer.group_add(name, "queue")
    await layer.group_send(name, {"type": "group"})
    assert await read(layer, channel) == {"type": "group"}
    await layer.send(name, {"type": "queue"})
    assert await read(layer, name) == {"type": "queue"}
    assert await read(layer, "queue") == {"type": "group"}
