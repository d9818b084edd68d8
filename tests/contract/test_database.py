"""The conformance suite over the layer in a database of Django's: SQLite, MariaDB, PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from channels.backends.database import DatabaseChannelLayer
from channels.testing.layers import Broker, Features, LayerConformance
from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.layers.databases import (
    alias,
    mysql_address,
    mysql_settings,
    mysql_tables,
    sqlite_alias,
)

__all__ = ["alias", "mysql_address", "mysql_tables", "sqlite_alias"]


#: Hundreds of calls at once are a second's work and more, on a machine that does other things too.
PATIENT = {"send_timeout": 10.0}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """One that need not wait for a disk: what it is given is not kept."""
    folder = PostgresFolder()
    with folder.server() as server:
        yield server
    folder.remove()


@pytest.fixture
def postgres_alias(postgres: PostgresServer, alias: Callable[..., str]) -> str:
    return alias("postgres", **postgres.django)


class TestSqlite(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 50

    @pytest.fixture
    def layer_factory(self, sqlite_alias: str) -> Callable[..., Any]:
        return lambda **config: DatabaseChannelLayer(sqlite_alias, **{**PATIENT, **config})


# Each on one worker: its server takes seconds to start.


@pytest.mark.xdist_group("database over MariaDB")
class TestMysql(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 50

    @pytest.fixture
    def broker(
        self, mysql_address: tuple[str, int], mysql_tables: str, alias: Callable[..., str]
    ) -> Broker:
        prefix, aliases = uuid.uuid4().hex, dict[Any, str]()

        def make(address: tuple[str, int], **config: Any) -> DatabaseChannelLayer:
            if address not in aliases:
                aliases[address] = alias(f"mysql_{address[1]}", **mysql_settings(address))
            config = {"tables": mysql_tables, **PATIENT, **config}
            return DatabaseChannelLayer(aliases[address], prefix, **config)

        return Broker(mysql_address, make, {"answer_timeout": 0.4})


# PostgreSQL's own layer has the same tables, and script/test runs the suite over that one.
@pytest.mark.chaos
@pytest.mark.xdist_group("database over PostgreSQL")
class TestPostgres(LayerConformance):
    """Its connections break in `tests/cluster`."""

    features: ClassVar[Features] = Features(delays=True, leases=True)
    cancelled_readers = 50

    @pytest.fixture
    def layer_factory(self, postgres_alias: str) -> Callable[..., Any]:
        prefix = uuid.uuid4().hex
        return lambda **config: DatabaseChannelLayer(
            postgres_alias, prefix=prefix, **{**PATIENT, **config}
        )
