"""What only the layer in a database of Django's does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from django.db import connections

import channels.layers
from channels.backends.database import DatabaseChannelLayer
from channels.backends.database.options import DatabaseOptions
from channels.backends.database.tables import Tables
from channels.backends.postgres.options import PostgresOptions
from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidOption,
)
from channels.layers.registry import ChannelLayerManager
from tests.layers.databases import alias, drop_tables, sqlite_alias

__all__ = ["alias", "sqlite_alias"]

MakeLayer = Callable[..., DatabaseChannelLayer]
PATIENCE = 10.0


@pytest.fixture
async def make_layer(sqlite_alias: str) -> AsyncIterator[MakeLayer]:
    made = []

    def make(**config: Any) -> DatabaseChannelLayer:
        made.append(DatabaseChannelLayer(sqlite_alias, **config))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


async def read(layer: DatabaseChannelLayer, channel: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive(channel)


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"tables": "a; DROP"}, InvalidChannelLayerError, "tables="),
        ({"prefix": "x" * 101}, InvalidChannelLayerError, "100 characters"),
        ({"hosts": []}, InvalidChannelLayerError, "DatabaseChannelLayer does not know hosts"),
        ({"poll_shortest": 0.0}, InvalidOption, "poll_shortest=0.0"),
        ({"poll_longest": 0.01}, InvalidChannelLayerError, "less than poll_shortest"),
    ],
)
def test_mistakes_say_what_was_found(
    config: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        DatabaseChannelLayer(**config)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", r"'nowhere'.*default"),
        ("memory", "in memory.*expected a file"),
        ("foreign", "kind 'unknown': expected one of sqlite, mysql"),
    ],
)
async def test_a_database_that_cannot_do_is_told_to_who_uses_it_first(
    name: str, said: str, alias: Callable[..., str]
) -> None:
    alias("memory", ENGINE="django.db.backends.sqlite3", NAME=":memory:")
    alias("foreign", ENGINE="django.db.backends.dummy", NAME="")
    with pytest.raises(InvalidChannelLayerError, match=said):
        await DatabaseChannelLayer(name).new_channel()


def test_it_is_found_by_both_its_names() -> None:
    for path in (
        "channels.backends.database.DatabaseChannelLayer",
        "channels.layers.DatabaseChannelLayer",
    ):
        manager = ChannelLayerManager(lambda path=path: {"default": {"BACKEND": path}})  # type: ignore[misc]
        assert isinstance(manager["default"], DatabaseChannelLayer)
    assert channels.layers.DatabaseChannelLayer is DatabaseChannelLayer


async def test_missing_tables_are_told(
    make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "channels.layers")
    layer = make_layer(create_tables=False, send_timeout=0.3)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("work", {"type": "x"})
    assert "has no table channels_database_message" in caplog.text
    assert caplog.text.count("out of reach") == 1


async def test_tables_of_another_layer_are_told(
    make_layer: MakeLayer, sqlite_alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    def make_other() -> None:
        with connections[sqlite_alias].cursor() as cursor:
            cursor.execute("CREATE TABLE other_message (id bigint, hash bigint, target text)")
        connections[sqlite_alias].close()

    await asyncio.to_thread(make_other)
    with pytest.raises(ChannelLayerUnavailable):
        await make_layer(tables="other", send_timeout=0.3).send("work", {"type": "x"})
    assert "other_message in the database" in caplog.text
    assert "it has no expires, payload. Set `tables`" in caplog.text


def test_the_tables_of_the_postgresql_layer_have_other_names() -> None:
    assert DatabaseOptions().tables != PostgresOptions().tables


async def test_many_processes_make_the_tables_at_once(make_layer: MakeLayer) -> None:
    layers = [make_layer() for _ in range(4)]
    channels = await asyncio.gather(*(layer.new_channel() for layer in layers))
    for layer, channel in zip(layers, channels, strict=True):
        await layer.group_add("room", channel)
    await layers[0].group_send("room", {"type": "x"})
    for layer, channel in zip(layers, channels, strict=True):
        assert await read(layer, channel) == {"type": "x"}


async def test_tables_made_anew_under_a_running_layer(
    make_layer: MakeLayer, sqlite_alias: str
) -> None:
    layer = make_layer(send_timeout=5)
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)

    def drop() -> None:
        drop_tables(sqlite_alias, "channels_database")
        connections[sqlite_alias].close()

    await asyncio.to_thread(drop)
    await layer.group_send("room", {"type": "x"})
    assert await read(layer, channel) == {"type": "x"}
    async with asyncio.timeout(PATIENCE):
        while not gaps:  # noqa: ASYNC110 - told on another thread
            await asyncio.sleep(0.01)


async def test_what_the_database_refuses_does_not_stop_what_comes_after_it(
    make_layer: MakeLayer, sqlite_alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(send_timeout=3)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)

    def run(statement: str) -> None:
        with connections[sqlite_alias].cursor() as cursor:
            cursor.execute(statement)
        connections[sqlite_alias].close()

    refuse = "BEGIN SELECT RAISE(ABORT, 'no such message'); END"
    trigger = f"CREATE TRIGGER no BEFORE INSERT ON channels_database_message {refuse}"
    await asyncio.to_thread(run, trigger)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.group_send("room", {"type": "x"})
    assert "no such message" in caplog.text
    await asyncio.to_thread(run, "DROP TRIGGER no")
    await layer.group_send("room", {"type": "y"})
    assert await read(layer, channel) == {"type": "y"}


async def test_prefixes_are_kept_apart(make_layer: MakeLayer) -> None:
    one, two = make_layer(prefix="one"), make_layer(prefix="two")
    for layer in (one, two):
        await layer.group_add("room", "members")
    await one.group_send("room", {"type": "one"})
    await two.send("work", {"type": "two"})
    await one.flush()
    assert await read(two, "work") == {"type": "two"}
    await two.group_send("room", {"type": "still a member"})
    assert await read(two, "members") == {"type": "still a member"}


async def test_what_is_joined_while_the_log_is_read_is_read_too(make_layer: MakeLayer) -> None:
    sender, reader = make_layer(), make_layer(poll_longest=0.02)
    channel = await reader.new_channel()
    for number in range(30):
        group = f"room{number}"
        await sender.group_send(group, {"type": "before"})
        await reader.group_add(group, channel)
        await sender.group_send(group, {"type": "after"})
        assert await read(reader, channel) == {"type": "after"}


async def test_more_groups_and_messages_than_a_page_has(make_layer: MakeLayer) -> None:
    sender, reader = make_layer(capacity=1000), make_layer(capacity=1000)
    await sender.new_channel()
    channel = await reader.new_channel()
    count = 600
    await asyncio.gather(*(reader.group_add(f"room{each}", channel) for each in range(count)))
    await asyncio.gather(
        *(sender.group_send(f"room{each}", {"type": "x", "n": each}) for each in range(count))
    )
    assert [(await read(reader, channel))["n"] for _ in range(count)] == list(range(count))


async def test_a_quiet_layer_looks_less_often(make_layer: MakeLayer) -> None:
    layer = make_layer(poll_shortest=0.001, poll_longest=10.0)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    # Its own sends wake its reader, whatever the pause has grown to.
    for _ in range(5):
        await asyncio.sleep(0.05)
        await layer.group_send("room", {"type": "x"})
        assert await read(layer, channel) == {"type": "x"}


async def test_tables_of_the_version_before_are_used_and_completed(
    make_layer: MakeLayer, sqlite_alias: str
) -> None:
    tables = Tables("channels_database", sqlite_alias)

    def drop_member() -> None:
        with connections[sqlite_alias].schema_editor() as editor:
            editor.delete_model(tables.member.model)
        connections[sqlite_alias].close()

    before = make_layer()
    await before.send("work", {"type": "old"})
    await before.close()
    await asyncio.to_thread(drop_member)
    layer = make_layer(delivery={"work": "at-least-once"})
    await layer.send("work", {"type": "new"}, delay=0.05)
    for kind in ("old", "new"):
        message, lease = await take(layer)
        assert (message, lease.attempts) == ({"type": kind}, 1)
        assert await lease.ack()


async def test_tables_of_the_version_before_that_must_not_be_completed_are_told(
    make_layer: MakeLayer, sqlite_alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "channels.layers")
    tables = Tables("channels_database", sqlite_alias)

    def make_all_but_member() -> None:
        tables.create(may_create=True)
        with connections[sqlite_alias].schema_editor() as editor:
            editor.delete_model(tables.member.model)
        connections[sqlite_alias].close()

    await asyncio.to_thread(make_all_but_member)
    layer = make_layer(create_tables=False, send_timeout=0.3)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("work", {"type": "x"})
    assert "has no table channels_database_member" in caplog.text


async def take(layer: DatabaseChannelLayer) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await layer.receive_leased("work")


async def test_places_in_queues_take_no_room_in_the_log(make_layer: MakeLayer) -> None:
    layer = make_layer(max_messages=100, send_timeout=10)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for _ in range(3):
        await asyncio.gather(*(layer.send("work", {"type": "x"}) for _ in range(50)))
        for _ in range(50):
            await read(layer, "work")
    await layer.group_send("room", {"type": "y"})
    assert await read(layer, channel) == {"type": "y"}


async def test_a_lease_keeps_its_place_and_nothing_is_left_behind(
    make_layer: MakeLayer, sqlite_alias: str
) -> None:
    layer = make_layer(delivery={"work": {"retry_delay": 0.0}})
    for number in range(3):
        await layer.send("work", {"type": "x", "number": number})
    leases = [(await take(layer))[1] for _ in range(3)]
    # In another order than they were taken in.
    for number in (1, 2, 0):
        assert await leases[number].retry(delay=0)
    for number in range(3):
        message, lease = await take(layer)
        assert (message["number"], lease.attempts) == (number, 2)
        assert await lease.extend()
        assert await lease.ack()
    tables = Tables("channels_database", sqlite_alias)

    def left() -> int:
        count: int = tables.queue.count()
        connections[sqlite_alias].close()
        return count

    assert await asyncio.to_thread(left) == 0


async def test_another_process_sees_to_what_a_dead_one_has_delayed(make_layer: MakeLayer) -> None:
    sender, reader = make_layer(), make_layer()
    await sender.send("later", {"type": "x"}, delay=0.5)
    reading = asyncio.create_task(reader.receive("later"))
    await reader.new_channel()
    await sender.close()
    async with asyncio.timeout(PATIENCE):
        assert await reading == {"type": "x"}


async def test_what_has_expired_while_it_was_held_is_dropped(make_layer: MakeLayer) -> None:
    layer = make_layer(delivery={"work": {"expiry": 1.0}})
    await layer.new_channel()
    await layer.send("work", {"type": "void"})
    _, lease = await take(layer)
    assert await lease.retry(delay=1.1)
    await layer.send("work", {"type": "good"}, delay=1.2)
    message, lease = await take(layer)
    assert (message, lease.attempts) == ({"type": "good"}, 1)
    assert await lease.ack()


async def test_the_bound_holds_for_all_processes_together(make_layer: MakeLayer) -> None:
    layers = [make_layer(max_delayed=10, send_timeout=10) for _ in range(2)]
    await asyncio.gather(*(layer.new_channel() for layer in layers))
    sent = await asyncio.gather(
        *(layer.send("work", {"type": "x"}, delay=60) for layer in layers for _ in range(10)),
        return_exceptions=True,
    )
    assert [type(each) for each in sent if each is not None] == [ChannelFull] * 10
