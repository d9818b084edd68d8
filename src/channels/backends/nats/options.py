"""The options of the NATS layer beside those of every layer."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """How a process uses its NATS servers."""

    ping_interval: float = option(
        4.0,
        unit="seconds",
        minimum=0.1,
        maximum=6.0,
        help="a connection that leaves two pings in a row unanswered is given up",
    )
    ack_wait: float = option(
        30.0,
        unit="seconds",
        minimum=1.0,
        help="what a process had taken that was killed goes to another after this",
    )
    queue_life: float = option(
        3600.0, unit="seconds", minimum=60.0, help="a reader unused for so long is forgotten"
    )
    replicas: int = option(
        1, unit="servers", minimum=1, maximum=5, help="servers of the cluster that hold a queue"
    )
    persistent: bool = option(
        False, help="messages in queues are written to disk and outlive the server's restart"
    )

    def __post_init__(self) -> None:
        check_options(self)
