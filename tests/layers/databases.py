"""The database servers that tests use as ordinary clients, with tables of their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.mariadb import mariadb_server
from tests.cluster.postgres import PostgresFolder
from tests.cluster.servers import missing


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The DSN of a PostgreSQL: of `CHANNELS_TEST_POSTGRES`, of this machine, or the tests' own."""
    psycopg = pytest.importorskip("psycopg")
    named = os.environ.get("CHANNELS_TEST_POSTGRES")
    dsn = named or "postgresql://postgres@127.0.0.1:5432/test?connect_timeout=3"
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        if named:
            missing(f"no PostgreSQL answers (CHANNELS_TEST_POSTGRES): {error}")
    else:
        yield dsn
        return
    folder = PostgresFolder()
    try:
        with folder.server() as server:
            yield f"{server.dsn}?connect_timeout=3"
    finally:
        folder.remove()


@pytest.fixture(scope="session")
def postgres_tables(postgres_dsn: str) -> Iterator[str]:
    """What the names of this run's tables begin with; they are dropped at its end."""
    import psycopg

    tables = f"t_{uuid.uuid4().hex[:16]}"
    yield tables
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        drop_postgres_tables(connection, tables)


def drop_postgres_tables(connection: Any, begin: str) -> None:
    """Drop all tables and functions whose names begin so."""
    for catalog, name, kind in (
        ("pg_class", "relname", "TABLE"),
        ("pg_proc", "proname", "FUNCTION"),
    ):
        column = "oid::regclass" if kind == "TABLE" else "oid::regprocedure"
        query = f"SELECT {column}::text FROM {catalog} WHERE {name} LIKE %s"
        query += " AND relkind = 'r'" if kind == "TABLE" else ""
        for (found,) in connection.execute(query.encode(), (f"{begin}\\_%",)).fetchall():
            connection.execute(f"DROP {kind} {found}".encode())


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


@pytest.fixture
def sqlite_alias(alias: Callable[..., str], tmp_path: Path) -> str:
    """An alias for a file of the test's own."""
    return alias(
        "sqlite",
        ENGINE="django.db.backends.sqlite3",
        NAME=str(tmp_path / "layer.sqlite3"),
        OPTIONS={"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"},
    )


@pytest.fixture(scope="session")
def mysql_address() -> Iterator[tuple[str, int]]:
    """Host and port of a MySQL or MariaDB: of `CHANNELS_TEST_MYSQL` (host:port), or the tests' own.

    It takes "root" without a password, and has a database "test".
    """
    pymysql = pytest.importorskip("pymysql")
    pymysql.install_as_MySQLdb()
    named = os.environ.get("CHANNELS_TEST_MYSQL")
    if not named:
        with mariadb_server() as server:
            yield "127.0.0.1", server.port
        return
    host, _, port = named.partition(":")
    try:
        pymysql.connect(
            host=host, port=int(port), user="root", database="test", connect_timeout=3
        ).close()
    except pymysql.err.OperationalError as error:
        missing(f"no MySQL answers (CHANNELS_TEST_MYSQL): {error}")
    yield host, int(port)


@pytest.fixture(scope="module")
def mysql_tables(mysql_address: tuple[str, int], django_db_blocker: Any) -> Iterator[str]:
    """What the names of `DatabaseChannelLayer`'s tables begin with there; dropped at the end."""
    from django.db import connections

    tables = f"t_{uuid.uuid4().hex[:12]}"
    yield tables
    configured = connections.configure_settings(
        {"default": {}, "drop": mysql_settings(mysql_address)}
    )
    connections.settings["drop"] = configured["drop"]
    with django_db_blocker.unblock():
        drop_tables("drop", tables)
        connections["drop"].close()
    del connections["drop"]
    del connections.settings["drop"]


def drop_tables(alias: str, begin: str) -> None:
    """Drop all tables of a database of Django's whose names begin so."""
    from django.db import connections

    connection = connections[alias]
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            if name.startswith(f"{begin}_"):
                cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")


def mysql_settings(address: tuple[str, int]) -> dict[str, str]:
    """What DATABASES says of a MySQL or MariaDB there."""
    host, port = address
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "test",
        "USER": "root",
        "HOST": host,
        "PORT": str(port),
    }
