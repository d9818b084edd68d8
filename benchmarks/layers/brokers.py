"""Brokers of the benchmark's own: on free ports, in folders of their own, ended at the end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.layers.databases import DatabaseOnPostgres, Sqlite
from benchmarks.layers.hub_process import Hub
from benchmarks.layers.nats_server import Nats
from benchmarks.layers.postgres_server import Postgres
from benchmarks.layers.rabbitmq_server import RabbitMQ
from benchmarks.layers.redis_server import Redis
from benchmarks.layers.server import Broker

BROKERS: dict[str, type[Redis | Hub | Postgres | RabbitMQ | Nats | Sqlite]] = {
    "redis": Redis,
    "hub": Hub,
    "postgres": Postgres,
    "rabbitmq": RabbitMQ,
    "nats": Nats,
    "database-postgres": DatabaseOnPostgres,
    "database-sqlite": Sqlite,
}


@contextlib.contextmanager
def running(name: str, kills: bool = False) -> Iterator[Broker]:
    """A broker, until the end.

    Args:
        kills: Whether connections are to be killed.

    Raises:
        NotInstalled: If its program is missing.
    """
    with tempfile.TemporaryDirectory(prefix="channels-bench-") as folder:
        broker = BROKERS[name](Path(folder))
        try:
            if kills:
                broker.allow_kills()
            broker.start()
            yield broker
        finally:
            broker.close()
