"""One connection to PostgreSQL: wake-ups, whenever they come, and its end while it waits."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest

from channels.backends.postgres.connection import PostgresConnection
from channels.testing.layers.base import soon
from tests.layers.databases import postgres_dsn

__all__ = ["postgres_dsn"]

PATIENCE = 10.0


@pytest.fixture
async def listener(postgres_dsn: str) -> AsyncIterator[PostgresConnection]:
    connection = await PostgresConnection.open({"conninfo": postgres_dsn}, PATIENCE)
    yield connection
    await connection.close()


async def test_a_wake_up_that_comes_with_an_answer_or_before_the_wait_is_not_missed(
    postgres_dsn: str, listener: PostgresConnection
) -> None:
    channel = f"t_{uuid.uuid4().hex[:16]}"
    await listener.fetch(f"LISTEN {channel}")
    # Its own statement brings it: nothing more will be there to read.
    await listener.fetch(f"SELECT pg_notify('{channel}', 'with the answer')")
    assert await listener.wait_notified(PATIENCE) == ["with the answer"]
    other = await PostgresConnection.open({"conninfo": postgres_dsn}, PATIENCE)
    await other.fetch(f"SELECT pg_notify('{channel}', 'before')")
    assert await listener.wait_notified(PATIENCE) == ["before"]
    waiting = asyncio.create_task(listener.wait_notified(PATIENCE))
    await asyncio.sleep(0)
    await other.fetch(f"SELECT pg_notify('{channel}', 'meanwhile')")
    assert await soon(waiting) == ["meanwhile"]
    assert await listener.wait_notified(0.0) == []
    await other.close()


async def test_a_connection_that_is_aborted_or_ended_fails_who_waits(
    postgres_dsn: str, listener: PostgresConnection
) -> None:
    waiting = asyncio.create_task(listener.wait_notified(PATIENCE))
    await asyncio.sleep(0)
    listener.abort()
    with pytest.raises(psycopg.OperationalError):
        await soon(waiting)
    second, other = [
        await PostgresConnection.open({"conninfo": postgres_dsn}, PATIENCE) for _ in range(2)
    ]
    waiting = asyncio.create_task(second.wait_notified(PATIENCE))
    await asyncio.sleep(0)
    await other.fetch(f"SELECT pg_terminate_backend({second.raw.info.backend_pid})")
    with pytest.raises(psycopg.OperationalError):
        await soon(waiting)
    for connection in (second, other):
        await connection.close()


async def test_who_is_cancelled_leaves_the_connection_usable(listener: PostgresConnection) -> None:
    waiting = asyncio.create_task(listener.wait_notified(PATIENCE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await listener.fetch("SELECT 1") == [(1,)]
