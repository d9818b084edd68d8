"""The bounds and times of edge and workers, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from channels.decoupled.messages import ACK_BYTES, ACK_EVENTS, MESSAGE_BYTES
from channels.kit.limits import KIB, MIB
from channels.kit.mailbox import CLIENT_BYTES, CLIENT_EVENTS
from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What edge and worker both need to know, and should be told the same."""

    offers: str = option(
        "decoupled.offers",
        help="the channel in which edges offer connections; workers of the same name take them",
    )
    link: str = option(
        "auto",
        choices=("auto", "layer"),
        help="how edge and worker talk: over a Unix socket where one machine runs both, or always "
        "through the channel layer",
    )
    heartbeat: float = option(
        5.0, unit="seconds", minimum=0.05, help="how often edge and worker tell that they live"
    )
    heartbeat_misses: int = option(
        3, unit="number", minimum=2, help="heartbeats after which the other counts as dead"
    )
    max_peers: int = option(
        1000, unit="processes", minimum=1, help="edges that a worker knows, or workers that an edge"
    )
    link_bytes: int = option(
        4 * MIB,
        unit="bytes",
        minimum=64 * KIB,
        help="what may wait for one other process, and again what it has not confirmed",
    )
    link_message_bytes: int = option(
        MESSAGE_BYTES,
        unit="bytes",
        minimum=64 * KIB,
        help="largest event that passes between edge and worker; the layer's max_message_bytes "
        "must be larger by half",
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, slots=True)
class EdgeOptions(LinkOptions):
    """How long connections wait for workers, and how much waits at the edge."""

    http: str = option(
        "worker",
        choices=("worker", "edge"),
        help="where HTTP is answered: by a worker, or by the application in the edge's process",
    )
    claim_timeout: float = option(
        4.0,
        unit="seconds",
        minimum=0.05,
        help="time for a worker to take a new WebSocket, which is then refused with 503; less "
        "than the server's handshake timeout",
    )
    http_claim_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.05,
        help="time for a worker to take a request, which is then answered with 503",
    )
    resume_timeout: float = option(
        60.0,
        unit="seconds",
        minimum=0.05,
        help="time for a worker to take a connection that another has handed over or left by its "
        "death; then it is closed with 1012",
    )
    offer_again: float = option(
        2.0,
        unit="seconds",
        minimum=0.05,
        help="an offer that no worker has answered by then is repeated, once for a new connection",
    )
    retry_after: int = option(
        2, unit="seconds", minimum=0, help="what 503 tells clients to wait before they come again"
    )
    unacknowledged_events: int = option(
        CLIENT_EVENTS,
        unit="events",
        minimum=2 * ACK_EVENTS,
        help="events of one connection that its consumer has not handled; then the socket is left "
        "unread",
    )
    unacknowledged_bytes: int = option(
        CLIENT_BYTES, unit="bytes", minimum=2 * ACK_BYTES, help="the same in bytes"
    )
    unsent_events: int = option(
        64,
        unit="events",
        minimum=4,
        help="events for one client that are not with its socket; then the consumer's send() waits",
    )
    unsent_bytes: int = option(256 * KIB, unit="bytes", minimum=4 * KIB, help="the same in bytes")
    group_capacity: int = option(
        100,
        unit="messages",
        minimum=1,
        help="messages of the socket's own groups that wait while its client does not read",
    )
    group_bytes: int = option(1 * MIB, unit="bytes", minimum=KIB, help="the same in bytes")
    group_overflow: str = option(
        "drop_new",
        choices=("drop_new", "drop_old", "latest", "close"),
        help="what becomes of more of them: see MailboxBounds",
    )


@dataclass(frozen=True, slots=True)
class ConnectionWorkerOptions(LinkOptions):
    """How many connections a worker takes, and how it stops."""

    max_connections: int = option(
        1000, unit="connections", minimum=1, help="connections that this worker serves at once"
    )
    claim_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.05,
        help="time for an edge to answer a claim; then its place is free for another",
    )
    roll_interval: float = option(
        30.0,
        unit="seconds",
        minimum=0.05,
        help="how often edge and worker compare which connections they have in common",
    )
    shutdown_timeout: float = option(
        30.0,
        unit="seconds",
        minimum=0.0,
        help="time for connections that cannot be handed over, when the worker stops",
    )
    close_spread: float = option(
        5.0,
        unit="seconds",
        minimum=0.0,
        help="after it those that are left are closed with 1012, spread over this time",
    )
    close_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.01,
        help="time for a consumer whose client has gone; then it is cancelled",
    )
    max_state_bytes: int = option(
        64 * KIB,
        unit="bytes",
        minimum=KIB,
        maximum=MIB,
        help="largest state of a consumer that is handed over",
    )

    @property
    def stop_seconds(self) -> float:
        """The longest that a process takes to end, from the signal on.

        `shutdown_timeout` and `close_spread`, `close_timeout` for consumers that were told, 2 s for
        cancelled ones, 2 s for the last messages to the edges, 1 s each for the layer, other tasks,
        the log.
        """
        return self.shutdown_timeout + self.close_spread + self.close_timeout + 7.0
