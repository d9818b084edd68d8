"""What CONFIG may say to the layer in a database of Django's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import check_options, option

_IDENTIFIER: Final = re.compile(r"[a-z][a-z0-9_]{0,19}")


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """Bounds and intervals."""

    #: What the names of its tables begin with.
    tables: str = "channels_layer"
    create_tables: bool = option(True, help="make the tables if they are missing")
    poll_shortest: float = option(
        0.02, unit="seconds", minimum=0.001, maximum=10.0, help="from look to look under traffic"
    )
    poll_longest: float = option(
        0.5, unit="seconds", minimum=0.001, maximum=10.0, help="from look to look when all is quiet"
    )
    answer_timeout: float = option(
        8.0, unit="seconds", minimum=0.1, maximum=10.0, help="a database that takes longer is away"
    )
    clean_interval: float = option(
        5.0, unit="seconds", minimum=0.1, help="how often a process looks for expired messages"
    )
    node_life: float = option(
        60.0, unit="seconds", minimum=10.0, help="a process not heard of for so long is gone"
    )
    max_messages: int = option(
        100_000, unit="messages", minimum=100, help="size of the log at which sends are refused"
    )
    max_pending: int = option(
        10_000, unit="calls", minimum=100, help="calls of a process that may wait for the database"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.poll_longest < self.poll_shortest:
            raise InvalidChannelLayerError(
                f"poll_longest={self.poll_longest} is less than poll_shortest={self.poll_shortest}."
            )
        if not isinstance(self.tables, str) or not _IDENTIFIER.fullmatch(self.tables):
            raise InvalidChannelLayerError(
                f"tables={self.tables!r}: expected a name of at most 20 lower-case letters, digits "
                "and underscores."
            )
