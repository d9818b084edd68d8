"""The layers that are measured: ours, and those of a peer in an environment of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Contender:
    """A layer, the Python that runs it, and the broker that it needs."""

    name: str
    layer: str
    broker: str
    #: Beside what the broker says.
    config: Mapping[str, Any] = field(default_factory=dict)
    #: None: this Python and this source tree.
    environment: Path | None = None
    #: Names of cases whose goal its documentation does not promise.
    unpromised: frozenset[str] = frozenset()

    @property
    def is_ours(self) -> bool:
        return self.environment is None

    @property
    def python(self) -> str:
        return sys.executable if self.environment is None else f"{self.environment}/bin/python"

    @property
    def path(self) -> str:
        """PYTHONPATH: a peer sees this package of benchmarks and nothing of ours beside it."""
        return f"{ROOT / 'src'}:{ROOT}" if self.is_ours else str(ROOT)


#: So large that no case is one of a full channel.
ROOMY = {"capacity": 100_000}
DATABASE = "channels.layers.DatabaseChannelLayer"
#: A call waits until the broker has confirmed or committed it, and that until it has a batch.
WAITS = frozenset({"sync"})
OURS = [
    Contender("redis", "channels.layers.RedisChannelLayer", "redis", ROOMY),
    Contender(
        "redis-pubsub",
        "channels.layers.RedisPubSubChannelLayer",
        "redis",
        ROOMY,
        unpromised=frozenset({"kill"}),
    ),
    Contender("local", "channels.layers.LocalChannelLayer", "hub", ROOMY),
    Contender(
        "postgres",
        "channels.layers.PostgresChannelLayer",
        "postgres",
        ROOMY,
        unpromised=WAITS,
    ),
    Contender(
        "rabbitmq", "channels.layers.RabbitMQChannelLayer", "rabbitmq", ROOMY, unpromised=WAITS
    ),
    Contender(
        "nats",
        "channels.layers.NatsChannelLayer",
        "nats",
        ROOMY,
        # NATS keeps nothing of a group for who is cut off.
        unpromised=frozenset({"kill", "restart"}),
    ),
    Contender("database-postgres", DATABASE, "database-postgres", ROOMY, unpromised=WAITS),
    Contender("database-sqlite", DATABASE, "database-sqlite", ROOMY, unpromised=WAITS),
]


def peers(folder: str) -> list[Contender]:
    """The layers of channels_redis in a virtual environment."""
    environment = Path(folder).absolute()
    if not (environment / "bin" / "python").exists():
        raise argparse.ArgumentTypeError(f"{folder!r}: expected the folder of an environment")
    core, pubsub = (f"channels_redis.{name}.Redis" for name in ("core", "pubsub"))
    return [
        Contender("peer-core", f"{core}ChannelLayer", "redis", ROOMY, environment),
        Contender("peer-pubsub", f"{pubsub}PubSubChannelLayer", "redis", ROOMY, environment),
    ]
