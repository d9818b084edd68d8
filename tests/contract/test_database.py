"""The conformance suite over the layer in a database of Django's: SQLite, MariaDB, PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from channels.database import DatabaseChannelLayer
from channels.testing.layers import Features, LayerConformance
from tests.layers.databases import (
    alias,
    mysql_address,
    mysql_alias,
    postgres_alias,
    postgres_dsn,
    server_tables,
    sqlite_alias,
)

__all__ = [
    "alias",
    "mysql_address",
    "mysql_alias",
    "postgres_alias",
    "postgres_dsn",
    "server_tables",
    "sqlite_alias",
]


@pytest.fixture
def on_server(server_tables: str, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Layers in tables of this run on the alias that the class names."""
    found, prefix = request.getfixturevalue(request.cls.server), uuid.uuid4().hex
    return lambda **config: DatabaseChannelLayer(
        found, prefix=prefix, tables=server_tables, **config
    )


class TestSqlite(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 100

    @pytest.fixture
    def layer_factory(self, sqlite_alias: str) -> Callable[..., Any]:
        return lambda **config: DatabaseChannelLayer(sqlite_alias, **config)


@pytest.mark.xdist_group("mariadb")
class TestMysql(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 100
    server = "mysql_alias"

    @pytest.fixture
    def layer_factory(self, on_server: Callable[..., Any]) -> Callable[..., Any]:
        return on_server


class TestPostgres(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 100
    server = "postgres_alias"

    @pytest.fixture
    def layer_factory(self, on_server: Callable[..., Any]) -> Callable[..., Any]:
        return on_server
