"""The brokers of the cluster tests in one table: how each is started, and what settings name it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.cluster.postgres import PostgresFolder
from tests.cluster.servers import OwnServer, nats_server, redis_server

#: Gives the CONFIG of a layer that reaches its broker at this port of the loopback interface.
Configure = Callable[[int, str], dict[str, Any]]


@dataclass(frozen=True)
class Site:
    """A broker of the test's own, and the settings of a layer on it."""

    name: str
    backend: str
    server: OwnServer
    configure: Configure
    prefix: str

    def config(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        """CONFIG for the broker itself, or for what listens at `port` before it."""
        return {**self.configure(port or self.server.port, self.prefix), **more}


def _redis(port: int, prefix: str) -> dict[str, Any]:
    return {"hosts": [f"redis://127.0.0.1:{port}"], "prefix": prefix}


def _nats(port: int, prefix: str) -> dict[str, Any]:
    return {"servers": f"nats://127.0.0.1:{port}", "prefix": prefix}


def _rabbitmq(port: int, prefix: str) -> dict[str, Any]:
    return {"url": f"amqp://guest:guest@127.0.0.1:{port}/", "prefix": prefix}


def _postgres(port: int, prefix: str) -> dict[str, Any]:
    return {"dsn": f"postgresql://postgres@127.0.0.1:{port}/postgres", "prefix": prefix}


#: Name -> (BACKEND, what makes its CONFIG).
BROKERS: Final[Mapping[str, tuple[str, Configure]]] = {
    "redis": ("channels.layers.RedisChannelLayer", _redis),
    "redis-pubsub": ("channels.layers.RedisPubSubChannelLayer", _redis),
    "postgres": ("channels.layers.PostgresChannelLayer", _postgres),
    "rabbitmq": ("channels.layers.RabbitMQChannelLayer", _rabbitmq),
    "nats": ("channels.layers.NatsChannelLayer", _nats),
}


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[OwnServer]:
    """A server of this kind, for some tests; RabbitMQ takes its time, use the fixture for it."""
    if name == "postgres":
        data = PostgresFolder()
        with data.server() as server:
            yield server
        data.remove()
    else:
        with (nats_server if name == "nats" else redis_server)(folder) as server:
            yield server


def site_on(name: str, server: OwnServer) -> Site:
    """What a test gets: the server running, and a prefix that nobody has used."""
    if not server.is_running:
        server.start()
    backend, configure = BROKERS[name]
    return Site(name, backend, server, configure, f"t{uuid.uuid4().hex[:12]}")
