"""The options of the RabbitMQ layer beside those of every layer."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class RabbitMQOptions:
    """How a process uses its broker."""

    node_capacity: int = option(
        10_000, unit="messages", minimum=1, help="unread messages that wait for one process"
    )
    window: float = option(
        30.0,
        unit="seconds",
        minimum=1.0,
        help="a process that is away for so long has lost its inbox",
    )
    heartbeat: int = option(
        3,
        unit="seconds",
        minimum=1,
        maximum=60,
        help="a connection that was silent for three of these and 3 seconds is given up",
    )
    queue_life: float = option(
        3600.0, unit="seconds", minimum=60.0, help="a queue that nobody uses for so long goes"
    )
    persistent: bool = option(
        False, help="messages in queues are written to disk and outlive the broker's restart"
    )

    def __post_init__(self) -> None:
        check_options(self)
