"""A port on which a process that serves no HTTP of the site shows what it counts."""

from __future__ import annotations

from dataclasses import dataclass

from channels.exceptions import InvalidOption, StartupFailed
from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class MetricsPort:
    """Where Prometheus reads what an edge, an interface server or a worker counts."""

    metrics: str | None = option(
        None,
        none="nowhere",
        help="address and port where Prometheus reads this process's metrics, as in "
        "127.0.0.1:9100; without an address it is 127.0.0.1.  Whoever reaches it may read them",
    )

    def __post_init__(self) -> None:
        check_options(self)
        self.address()

    def address(self) -> tuple[str, int]:
        """Host and port; port 0 if there is none.

        Raises:
            InvalidOption: If it is no address.
        """
        if self.metrics is None:
            return "", 0
        host, _, port = self.metrics.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InvalidOption(f"metrics={self.metrics!r}: expected HOST:PORT or PORT.")
        return host.strip("[]") or "127.0.0.1", int(port)

    def open(self) -> None:
        """Answer from now on, on a thread of its own, until the process ends.

        Raises:
            StartupFailed: If prometheus_client is not installed, or the port cannot be had.
        """
        host, port = self.address()
        if not port:
            return
        try:
            # Here, because it is an extra of this package.
            from channels.metrics.exposition import serve_metrics  # noqa: PLC0415

            serve_metrics(port, host)
        except (ImportError, OSError) as error:
            raise StartupFailed(f"--metrics {self.metrics}: {error}") from error
