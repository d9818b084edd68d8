"""Delays and leases in PostgreSQL: what the conformance suite does not ask."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest

from channels.backends.postgres import PostgresChannelLayer
from channels.backends.postgres.schema import CLOCK, VERSION, schema_sql
from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.layers.envelope import Envelope, Kind
from tests.layers.databases import postgres_dsn

__all__ = ["postgres_dsn"]

MakeLayer = Callable[..., PostgresChannelLayer]
PATIENCE = 10.0
WRITE_BEFORE = f"channels_layer_write_{VERSION - 1}"
DELIVERY = {"work": {"retry_delay": 0.0, "dead_letter": None}}


class Place:
    """A schema of the test's own, and layers in it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.schema = f"t_{uuid.uuid4().hex[:16]}"
        self.made: list[PostgresChannelLayer] = []

    def layer(self, **config: Any) -> PostgresChannelLayer:
        config = {"schema": self.schema, "delivery": DELIVERY, **config}
        self.made.append(PostgresChannelLayer(self.dsn, **config))
        return self.made[-1]

    async def run(self, query: str) -> list[Any]:
        """In the schema."""
        async with await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, options=f"-c search_path={self.schema}"
        ) as connection:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []


@pytest.fixture
async def place(postgres_dsn: str) -> AsyncIterator[Place]:
    place = Place(postgres_dsn)
    await place.run(f"CREATE SCHEMA {place.schema}")
    yield place
    for layer in place.made:
        await layer.close()
    await place.run(f"DROP SCHEMA {place.schema} CASCADE")


async def soon(work: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await work


async def make_version_before(place: Place) -> None:
    """What a database has in which processes of the version before this one have been."""
    await place.run(schema_sql(schema=place.schema))
    await place.run("DROP TABLE channels_layer_outbox")
    named = f"SELECT proname FROM pg_proc WHERE pronamespace = '{place.schema}'::regnamespace"
    for (name,) in await place.run(named):
        await place.run(f"DROP FUNCTION {name}")
    await place.run(f"CREATE FUNCTION {WRITE_BEFORE}() RETURNS int LANGUAGE sql AS 'SELECT 1'")


async def test_tables_of_the_version_before_are_used_and_completed(place: Place) -> None:
    await make_version_before(place)
    layer = place.layer()
    # Unread from before.
    unread = Envelope(Kind.CHANNEL, "work", b"\x81\xa4type\xa3old", sender=b"12345678", seq=1)
    await place.run(
        "INSERT INTO channels_layer_queue (hash, prefix, expires, payload) VALUES "
        f"({layer.node.transport.hash_of('q', 'work')}, 'asgi', 1::bigint << 62, "  # type: ignore[attr-defined]
        f"'\\x{unread.encoded.hex()}')"
    )
    await layer.send("work", {"type": "new"}, delay=0.05)
    for kind in ("old", "new"):
        message, lease = await soon(layer.receive_leased("work"))
        assert (message, lease.attempts) == ({"type": kind}, 1)
        assert await lease.ack()
    # Processes of that version go on beside this one.
    assert await place.run(f"SELECT to_regproc('{WRITE_BEFORE}') IS NOT NULL") == [(True,)]


async def test_tables_of_the_version_before_that_must_not_be_completed_are_told(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "channels.layers")
    await make_version_before(place)
    layer = place.layer(create_schema=False, send_timeout=0.3)
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("work", {"type": "x"})
    assert "schema_sql()" in caplog.text
    assert f"no function {place.schema}.channels_layer_write_{VERSION}" in caplog.text
    await place.run(schema_sql(schema=place.schema))
    await soon(until_sent(layer))


async def until_sent(layer: PostgresChannelLayer) -> None:
    while True:
        try:
            await layer.send("work", {"type": "x"})
        except ChannelLayerUnavailable:
            continue
        return


async def test_a_lease_keeps_its_place(place: Place) -> None:
    layer = place.layer()
    for number in range(3):
        await layer.send("work", {"type": "x", "number": number})
    leases = [(await soon(layer.receive_leased("work")))[1] for _ in range(3)]
    # In another order than they were taken in.
    for number in (1, 2, 0):
        assert await leases[number].retry(delay=0)
    got = [(await soon(layer.receive_leased("work")))[0]["number"] for _ in range(3)]
    assert got == [0, 1, 2]


@pytest.mark.parametrize("turns", [0, 3, 8, 20])
async def test_a_reader_that_closes_in_the_middle_holds_nothing(place: Place, turns: int) -> None:
    first, second = place.layer(), place.layer()
    await first.send("work", {"type": "x"})
    waiting = asyncio.create_task(first.receive_leased("work"))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    # Whether the answer has come by then or not, nobody waits for a lease to run out.
    await first.close()
    _, lease = await soon(second.receive_leased("work"))
    assert lease.attempts == 1


async def test_nothing_is_left_behind(place: Place) -> None:
    layer = place.layer()
    for delay in (0.0, 0.02):
        await layer.send("work", {"type": "x"}, delay=delay)
        _, lease = await soon(layer.receive_leased("work"))
        await lease.retry(delay=0.02)
        _, lease = await soon(layer.receive_leased("work"))
        await lease.extend()
        await lease.ack()
    assert await place.run("SELECT count(*) FROM channels_layer_queue") == [(0,)]


async def until_empty(place: Place) -> None:
    while await place.run("SELECT count(*) FROM channels_layer_queue") != [(0,)]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_what_has_expired_while_it_was_held_is_dropped(place: Place) -> None:
    layer = place.layer(delivery={"work": {"expiry": 1.0}}, clean_interval=0.1)
    await layer.new_channel()
    await layer.send("work", {"type": "void"})
    _, lease = await soon(layer.receive_leased("work"))
    assert await lease.retry(delay=1.1)
    await soon(until_empty(place))
    await layer.send("work", {"type": "x"})
    message, lease = await soon(layer.receive_leased("work"))
    assert message == {"type": "x"}
    assert await lease.ack()


async def test_the_bound_holds_for_all_processes_together(place: Place) -> None:
    layers = [place.layer(max_delayed=10) for _ in range(3)]
    await asyncio.gather(*(layer.new_channel() for layer in layers))
    sent = await asyncio.gather(
        *(layer.send("work", {"type": "x"}, delay=60) for layer in layers for _ in range(10)),
        return_exceptions=True,
    )
    assert [type(each) for each in sent if each is not None] == [ChannelFull] * 20
    assert await place.run("SELECT count(*) FROM channels_layer_queue") == [(10,)]


async def test_another_process_sees_to_what_a_dead_one_has_delayed(place: Place) -> None:
    sender, reader = place.layer(), place.layer()
    await sender.send("later", {"type": "x"}, delay=0.5)
    reading = asyncio.create_task(reader.receive("later"))
    await reader.new_channel()
    await sender.close()
    assert await soon(reading) == {"type": "x"}


async def test_who_has_nothing_that_is_due_does_not_look_again_and_again(place: Place) -> None:
    layer = place.layer()
    await layer.new_channel()
    tick = f"SELECT * FROM channels_layer_tick_{VERSION}({CLOCK}, 100)"
    assert await place.run(tick) == [(None, 0)]
    await layer.send("work", {"type": "x"}, delay=60)
    ((wait, run_out),) = await place.run(tick)
    assert 30_000 < wait <= 60_000
    assert run_out == 0
