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
        help="a connection silent for two and a half of these is given up",
    )
    ack_wait: float = option(
        30.0,
        unit="seconds",
        minimum=1.0,
        help="a message that a process took and did not confirm goes to another after this",
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
    reliable: bool = option(
        False, help="what is sent to groups and processes waits for those that are cut off"
    )
    window: float = option(30.0, unit="seconds", minimum=1.0, help="for so long, with `reliable`")
    window_messages: int = option(
        100_000, unit="messages", minimum=1, help="of all groups and processes that may wait so"
    )
    window_bytes: int = option(
        64 * 1024 * 1024, unit="bytes", minimum=1024 * 1024, help="that these may hold"
    )
    max_queue_members: int = option(
        10_000,
        unit="memberships",
        minimum=1,
        help="channels that no process owns may be members of groups so often",
    )
    max_notes: int = option(
        100_000,
        unit="messages",
        minimum=1,
        help="messages remembered that were delivered more than once; of more the oldest go",
    )

    def __post_init__(self) -> None:
        check_options(self)
