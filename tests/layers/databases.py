"""The database servers that tests use as ordinary clients, with tables of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

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


@pytest.fixture
def alias(django_db_blocker: Any) -> Iterator[Callable[..., str]]:
    """Adds an alias to DATABASES for the test: `alias("other", ENGINE=..., NAME=...)`."""
    from django.db import connections

    added: list[str] = []

    def add(name: str, **settings: Any) -> str:
        configured = connections.configure_settings({"default": {}, name: settings})
        connections.settings[name] = configured[name]
        added.append(name)
        return name

    with django_db_blocker.unblock():
        yield add
        for name in added:
            connections[name].close()
            del connections[name]
            del connections.settings[name]


@pytest.fixture
def postgres_alias(postgres_dsn: str, alias: Callable[..., str]) -> str:
    """An alias for the server of `postgres_dsn`."""
    from psycopg.conninfo import conninfo_to_dict

    found = conninfo_to_dict(postgres_dsn)
    return alias(
        "postgres",
        ENGINE="django.db.backends.postgresql",
        NAME=found["dbname"],
        USER=found.get("user", ""),
        PASSWORD=found.get("password", ""),
        HOST=found.get("host", ""),
        PORT=found.get("port", ""),
    )
