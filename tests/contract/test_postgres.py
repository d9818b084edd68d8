"""The conformance suite over PostgreSQL."""

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from channels.testing.layers import Features, LayerConformance
from tests.layers.databases import postgres_dsn, postgres_tables

__all__ = ["postgres_dsn", "postgres_tables"]


class TestPostgres(LayerConformance):
    features: ClassVar[Features] = Features(delays=True, leases=True)

    @pytest.fixture
    def layer_factory(self, postgres_dsn: str, postgres_tables: str) -> Callable[..., Any]:
        from channels.layers.postgres import PostgresChannelLayer

        prefix = uuid.uuid4().hex
        return lambda **config: PostgresChannelLayer(
            postgres_dsn, prefix=prefix, tables=postgres_tables, **config
        )
