"""How several worker processes serve together."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.limits import MIB
from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes of `channels serve`; all but `workers` matters for two and more."""

    workers: int = option(
        1,
        unit="processes",
        minimum=1,
        maximum=1024,
        help="processes that serve, on the same listening sockets; with two and more a supervisor "
        "replaces those that end or hang, and SIGHUP replaces all with new code",
    )
    worker_heartbeat: float | None = option(
        30.0,
        unit="seconds",
        minimum=0.1,
        none="never",
        help="time without a sign of life of a worker's event loop after which it is killed and "
        "replaced",
    )
    worker_start_timeout: float | None = option(
        120.0,
        unit="seconds",
        minimum=0.1,
        none="never",
        help="time for a worker to import the application and start it, after which it is killed",
    )
    worker_backoff: float = option(
        30.0,
        unit="seconds",
        minimum=0.0,
        help="longest wait before a worker that ends again and again is started anew; the first "
        "time it is started at once",
    )
    drain_timeout: float = option(
        10.0,
        unit="seconds",
        minimum=0.0,
        help="time over which a worker that is being replaced closes its WebSockets, with 1012",
    )
    max_requests: int | None = option(
        None,
        unit="requests",
        minimum=1,
        none="any number",
        help="responses and WebSockets after which a worker is replaced",
    )
    max_memory: int | None = option(
        None,
        unit="bytes",
        minimum=MIB,
        none="any size",
        help="resident memory beyond which a worker is replaced",
    )
    recycle_spread: float = option(
        0.2,
        unit="ratio",
        minimum=0.0,
        maximum=1.0,
        help="part of max_requests and max_memory by which a worker's own bound is lower, at "
        "random at most, so that not all are replaced at once",
    )

    def __post_init__(self) -> None:
        check_options(self)
