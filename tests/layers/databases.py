"""The database servers that tests use as ordinary clients, with tables of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.servers import missing


@pytest.fixture(scope="session")
def postgres_dsn() -> str:
    """The DSN of a PostgreSQL: of `CHANNELS_TEST_POSTGRES`, or the one of this machine."""
    psycopg = pytest.importorskip("psycopg")
    dsn = os.environ.get(
        "CHANNELS_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test?connect_timeout=3"
    )
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        missing(f"no PostgreSQL answers (CHANNELS_TEST_POSTGRES): {error}")
    return dsn


@pytest.fixture(scope="session")
def postgres_tables(postgres_dsn: str) -> Iterator[str]:
    """What the names of this run's tables begin with; they are dropped at its end."""
    import psycopg

    from channels.layers.postgres.options import PostgresOptions
    from channels.layers.postgres.schema import Schema

    tables = f"t_{uuid.uuid4().hex[:16]}"
    yield tables
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(Schema(PostgresOptions(tables=tables)).drop().encode())
