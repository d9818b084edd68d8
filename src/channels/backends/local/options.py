"""The bounds of a hub, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class HubOptions:
    """What CONFIG may say of the hub; that of the process which runs it holds."""

    message_memory: int = option(
        100 * 1024 * 1024,
        unit="bytes",
        minimum=64 * 1024,
        help="unread messages of all queues; one that does not fit is refused as over capacity",
    )
    group_memory: int = option(
        20 * 1024 * 1024,
        unit="bytes",
        minimum=64 * 1024,
        help="names of groups and of their members",
    )
    peer_buffer: int = option(
        16 * 1024 * 1024,
        unit="bytes",
        minimum=64 * 1024,
        help="what may wait for a process that does not read; more is dropped, for it alone",
    )
    max_queues: int = option(
        100_000, unit="queues", minimum=1, help="channels with unread messages or readers"
    )
    max_peers: int = option(1000, unit="processes", minimum=2, help="processes on one hub")

    def __post_init__(self) -> None:
        check_options(self)
