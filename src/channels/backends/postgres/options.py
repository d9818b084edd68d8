"""What CONFIG may say to the layers whose messages are in tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import check_options, option


def check_name(key: str, value: object, longest: int) -> None:
    """Raise InvalidChannelLayerError unless it can be part of a table's name as it stands."""
    if not isinstance(value, str) or not re.fullmatch(
        rf"[a-z_][a-z0-9_]{{0,{longest - 1}}}", value
    ):
        raise InvalidChannelLayerError(
            f"{key}={value!r}: expected a name of at most {longest} lower-case letters, digits "
            "and underscores."
        )


@dataclass(frozen=True, slots=True)
class TableOptions:
    """Bounds and intervals of both layers whose messages are in tables."""

    #: What the names of its tables and functions begin with.
    tables: str = "channels_layer"
    clean_interval: float = option(
        5.0, unit="seconds", minimum=0.1, help="how often a process looks for expired messages"
    )
    node_life: float = option(
        60.0, unit="seconds", minimum=10.0, help="a process not heard of for so long is gone"
    )
    max_messages: int = option(
        1_000_000, unit="messages", minimum=100, help="size of the log at which sends are refused"
    )
    max_pending: int = option(
        10_000, unit="calls", minimum=100, help="calls of a process that may wait for the database"
    )


@dataclass(frozen=True, slots=True)
class PostgresOptions(TableOptions):
    """Bounds and intervals of the layer on PostgreSQL."""

    #: The schema they are in; None: the first of the search path.
    schema: str | None = None
    logged: bool = option(
        False, help="write messages to the WAL: they outlive a crash, at a tenth of the speed"
    )
    create_schema: bool = option(True, help="make the tables and functions if they are missing")
    poll_interval: float = option(
        1.0, unit="seconds", minimum=0.01, maximum=10.0, help="look for messages without a wake-up"
    )
    answer_timeout: float = option(
        5.0, unit="seconds", minimum=0.1, maximum=10.0, help="a server that takes longer is dead"
    )

    def __post_init__(self) -> None:
        check_options(self)
        check_name("tables", self.tables, 40)
        if self.schema is not None:
            check_name("schema", self.schema, 40)
