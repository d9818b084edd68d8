"""What CONFIG may say to the layer in a database of Django's."""

from __future__ import annotations

from dataclasses import dataclass

from channels.backends.postgres.options import TableOptions, check_name
from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import check_options, option


@dataclass(frozen=True, slots=True)
class DatabaseOptions(TableOptions):
    """Bounds and intervals of the layer in a database of Django's."""

    #: Not the PostgreSQL layer's, whose tables may be in the same database.
    tables: str = "channels_database"
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
    max_messages: int = option(
        100_000, unit="messages", minimum=100, help="size of the log at which sends are refused"
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.poll_longest < self.poll_shortest:
            raise InvalidChannelLayerError(
                f"poll_longest={self.poll_longest} is less than poll_shortest={self.poll_shortest}."
            )
        check_name("tables", self.tables, 20)
