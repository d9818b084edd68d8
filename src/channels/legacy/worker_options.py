"""What can be set about workers of Channels 1, beside how they stop."""

from __future__ import annotations

from dataclasses import dataclass

from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class RoutedOptions:
    """Which channels of a layer with ROUTING a worker serves, and how."""

    only_channels: tuple[str, ...] = option(
        (), help="globs of channels to listen on, no others; may be given several times"
    )
    exclude_channels: tuple[str, ...] = option(
        (), help="globs of channels to leave to other workers; may be given several times"
    )
    threads: int = option(
        1, unit="consumers", minimum=1, help="consumers of all channels together that run at once"
    )
    disable_graceful_stop: bool = option(
        False, help="at SIGTERM do not wait for consumers that run"
    )

    def __post_init__(self) -> None:
        check_options(self)
