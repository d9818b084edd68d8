"""The conformance suite over PostgreSQL."""

import uuid
from typing import Any, ClassVar

import pytest

from channels.testing.layers import Broker, Features, LayerConformance
from tests.layers.databases import postgres_dsn, postgres_tables

__all__ = ["postgres_dsn", "postgres_tables"]


class TestPostgres(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)

    @pytest.fixture
    def broker(self, postgres_dsn: str, postgres_tables: str) -> Broker:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        from channels.backends.postgres import PostgresChannelLayer

        prefix, found = uuid.uuid4().hex, conninfo_to_dict(postgres_dsn)

        def make(address: tuple[str, int], **config: Any) -> PostgresChannelLayer:
            dsn = make_conninfo(postgres_dsn, host=address[0], port=address[1])
            return PostgresChannelLayer(dsn, prefix=prefix, tables=postgres_tables, **config)

        address = (str(found.get("host", "127.0.0.1")), int(found.get("port") or 5432))
        return Broker(address, make, {"answer_timeout": 0.4, "poll_interval": 0.1})
