"""The brokers of the cluster tests in one table: how each is reached, and what it promises.

A new broker is a row here, and a fixture in `conftest.py` that starts its server.  The cases, in
`test_brokers.py` and `test_broker_leases.py`, run over all rows whose promise covers them.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.cluster.member import make_layer
from tests.cluster.postgres import PostgresServer, django_settings
from tests.cluster.servers import OwnServer

#: Gives the CONFIG of a layer that reaches its broker at this port of the loopback interface.
Configure = Callable[[int, str], dict[str, Any]]


def _redis(port: int, prefix: str) -> dict[str, Any]:
    return {"hosts": [f"redis://127.0.0.1:{port}"], "prefix": prefix}


def _nats(port: int, prefix: str) -> dict[str, Any]:
    return {"servers": f"nats://127.0.0.1:{port}", "prefix": prefix}


def _rabbitmq(port: int, prefix: str) -> dict[str, Any]:
    return {"url": f"amqp://guest:guest@127.0.0.1:{port}/", "prefix": prefix}


def _postgres(port: int, prefix: str) -> dict[str, Any]:
    return {"dsn": f"postgresql://postgres@127.0.0.1:{port}/postgres", "prefix": prefix}


def _database(port: int, prefix: str) -> dict[str, Any]:
    # Beside those of the layer of PostgreSQL's own.
    return {"database": f"at_{port}", "prefix": prefix, "tables": "in_django"}


def redis_command(port: int, *words: str) -> bytes:
    """What a Redis answers to one command, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(65536)


def _end_in_redis(server: OwnServer) -> None:
    assert redis_command(server.port, "CLIENT KILL TYPE normal SKIPME yes").startswith(b":")


def _end_in_postgres(server: OwnServer) -> None:
    assert isinstance(server, PostgresServer)
    server.end_connections()


@dataclass(frozen=True)
class Restart:
    """What a layer with these options still has when its broker was killed and is back."""

    options: Mapping[str, Any] = field(default_factory=dict)
    keeps_groups: bool = False
    keeps_queues: bool = False


@dataclass(frozen=True)
class Row:
    """A layer with a server.

    Attributes:
        server: The fixture that gives it.
        quick: Options with which a connection that is silently dead is found out in a second or so.
        many: Messages of a case with many.
        options: Others that make cases short.
        has_window: What is sent to a group while a process is cut off waits for it.
        has_one_order: All processes see a group's messages in one order.
        delays: `send` takes `delay`.
        exact_attempts: Leases count attempts, and not what was given back or reached nobody.
        queue_once: No message of a queue comes twice when connections break.
        restarts: One for each way to be configured that makes a difference.
        loses_only_unread: When the broker was killed, a group misses nothing but what lay unread:
            it keeps groups, or sends wait for the processes that were there.
        visibility_timeout: Of leases, at least.
        end_connections: Has the server end all its connections; None: it cannot.
        in_django: The layer reaches it by an alias of DATABASES.
    """

    backend: str
    server: str
    configure: Configure
    quick: Mapping[str, Any]
    many: int
    options: Mapping[str, Any] = field(default_factory=dict)
    has_window: bool = True
    has_one_order: bool = True
    queue_once: bool = True
    delays: bool = True
    exact_attempts: bool = True
    restarts: tuple[Restart, ...] = (Restart(),)
    loses_only_unread: bool = True
    visibility_timeout: float = 1.0
    end_connections: Callable[[OwnServer], None] | None = None
    in_django: bool = False


_REDIS: Final = Row(
    backend="channels.layers.RedisChannelLayer",
    server="redis",
    configure=_redis,
    quick={"answer_timeout": 0.4, "lease": 3.0},
    many=600,
    end_connections=_end_in_redis,
)
_NATS: Final = Row(
    backend="channels.layers.NatsChannelLayer",
    server="nats",
    configure=_nats,
    quick={"ping_interval": 0.4},
    many=600,
    # What a reader had when it was cut off comes again after so long.
    options={"ack_wait": 3.0},
    has_window=False,
    has_one_order=False,
    queue_once=False,
    delays=False,
    exact_attempts=False,
    restarts=(Restart({"persistent": True}, keeps_queues=True),),
    loses_only_unread=False,
)

BROKERS: Final[Mapping[str, Row]] = {
    "redis": _REDIS,
    "redis-pubsub": replace(
        _REDIS,
        backend="channels.layers.RedisPubSubChannelLayer",
        quick={"answer_timeout": 0.4, "lease": 1.0},
        has_window=False,
    ),
    "postgres": Row(
        backend="channels.layers.PostgresChannelLayer",
        server="postgres",
        configure=_postgres,
        quick={"answer_timeout": 0.4, "poll_interval": 0.1},
        many=300,
        restarts=(Restart(), Restart({"logged": True}, keeps_groups=True, keeps_queues=True)),
        end_connections=_end_in_postgres,
    ),
    "database": Row(
        backend="channels.layers.DatabaseChannelLayer",
        server="postgres",
        configure=_database,
        quick={"answer_timeout": 0.4},
        many=150,
        restarts=(Restart(keeps_groups=True, keeps_queues=True),),
        end_connections=_end_in_postgres,
        in_django=True,
    ),
    "rabbitmq": Row(
        backend="channels.layers.RabbitMQChannelLayer",
        server="rabbitmq",
        configure=_rabbitmq,
        quick={"heartbeat": 1},
        many=600,
        has_one_order=False,
        queue_once=False,
        delays=False,
        restarts=(Restart({"persistent": True, "window": 60.0}, keeps_queues=True),),
        visibility_timeout=30.0,
    ),
    "nats": _NATS,
}


@dataclass(frozen=True)
class Site:
    """A broker of the test's own, and the settings of a layer on it.

    Attributes:
        prefix: One that nobody has used.
        add_alias: Adds to DATABASES, as the fixture `alias` does.
    """

    name: str
    row: Row
    server: OwnServer
    prefix: str
    add_alias: Callable[..., str]
    _aliases: set[str] = field(default_factory=set)

    @property
    def backend(self) -> str:
        return self.row.backend

    def config(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        """CONFIG for the broker itself, or for what listens at `port` before it."""
        port = port or self.server.port
        for name, settings in self.databases(port).items():
            if settings and name not in self._aliases:
                self._aliases.add(self.add_alias(name, **settings))
        return {**self.row.configure(port, self.prefix), **more}

    def databases(self, port: int | None = None) -> dict[str, Any]:
        """DATABASES of a process with this layer; empty where it needs none."""
        if not self.row.in_django:
            return {}
        port = port or self.server.port
        return {"default": {}, f"at_{port}": django_settings(port)}

    def make(self, port: int | None = None, **more: Any) -> Any:
        """A layer, with patience and room for a busy machine."""
        common = {"capacity": 20_000, "send_timeout": 30.0, **self.row.options}
        return make_layer(self.backend, self.config(port, **{**common, **more}))


def site_on(name: str, server: OwnServer, add_alias: Callable[..., str]) -> Site:
    """What a test gets: the server running, without what former tests left."""
    if not server.is_running:
        server.start()
    if isinstance(server, PostgresServer):
        server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return Site(name, BROKERS[name], server, f"t{uuid.uuid4().hex[:12]}", add_alias)
