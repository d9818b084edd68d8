"""The options of the Redis layers beside those of every layer."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How a process uses its Redis."""

    node_capacity: int = option(
        10_000, unit="messages", minimum=1, help="unread messages that wait for one process"
    )
    lease: float = option(
        15.0, unit="seconds", minimum=1.0, help="a process not heard of for so long is gone"
    )
    settle: float = option(
        0.75,
        unit="seconds",
        minimum=0.0,
        help="after Redis lost its state, sends wait at most so long for the other processes",
    )
    answer_timeout: float = option(
        8.0, unit="seconds", minimum=0.1, help="a connection without an answer is given up"
    )
    cluster_shards: int = option(
        0,
        unit="shards",
        minimum=0,
        help="spread over so many slots of a Redis Cluster; 0: no cluster",
    )

    def __post_init__(self) -> None:
        check_options(self)
