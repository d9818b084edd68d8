"""What CONFIG may say to the layer on PostgreSQL, beside where the database is."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from channels.exceptions import InvalidChannelLayerError
from channels.kit.options import check_options, option
from channels.layers.redaction import without_secrets

#: A DSN, or the parameters of libpq by name.
Place = str | Mapping[str, Any]

_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
#: Offers `postgres_parameters(alias)`; on the floor that knows Django.
_SETTINGS_MODULE: Final = "channels.settings"
#: Unless the DSN says otherwise: reach a server or fail within seconds, and only one that writes.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "application_name": "channels",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "target_session_attrs": "read-write",
}


class _SettingsModule(Protocol):
    def postgres_parameters(self, alias: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """The bounds and intervals of the layer on PostgreSQL."""

    #: What the names of its tables and functions begin with.
    tables: str = "channels_layer"
    #: The schema they are in; None: the first of the search path.
    schema: str | None = None
    logged: bool = option(
        False, help="write messages to the WAL: they outlive a crash, at a tenth of the speed"
    )
    create_schema: bool = option(True, help="make the tables and functions if they are missing")
    flush_interval: float = option(
        0.0,
        unit="seconds",
        minimum=0.0,
        help="least time between two batches of a process; more of it, more calls in each",
    )
    poll_interval: float = option(
        1.0, unit="seconds", minimum=0.01, maximum=10.0, help="look for messages without a wake-up"
    )
    answer_timeout: float = option(
        5.0, unit="seconds", minimum=0.1, maximum=10.0, help="a server that takes longer is dead"
    )
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

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("tables", "schema"):
            value = getattr(self, name)
            if value is None and name == "schema":
                continue
            if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
                raise InvalidChannelLayerError(
                    f"{name}={value!r}: expected a name of at most 40 lower-case letters, digits "
                    "and underscores."
                )


def check_place(place: Place, *, key: str) -> dict[str, Any]:
    """The parameters of libpq in a DSN or a mapping.

    Raises:
        InvalidChannelLayerError: If there are some that libpq does not know.
    """
    try:
        if isinstance(place, str):
            return dict(conninfo_to_dict(place))
        if isinstance(place, Mapping):
            make_conninfo(**place)
            return dict(place)
    except (ProgrammingError, TypeError, ValueError) as error:
        said = f"cannot be read: {without_secrets(str(error).strip(), place)}"
    else:
        said = f"is of type {type(place).__name__}"
    # Not in the handler: the driver's error would be this one's context.
    raise InvalidChannelLayerError(
        f"{key} {said}; expected a DSN such as 'postgresql://user@host/name', or a dict of its "
        "parameters."
    )


class Places:
    """Where the database is: for the connection that writes, and for the one that listens.

    Args:
        database: An alias of Django's DATABASES, read when the layer first connects; used where
            no DSN is given.
    """

    def __init__(self, dsn: Place | None, listen_dsn: Place | None, database: str | None) -> None:
        if dsn is not None and database is not None:
            raise InvalidChannelLayerError(
                "dsn and database are both given: expected one of them, the address of a database "
                "or its alias in DATABASES."
            )
        self.database = None if dsn is not None else database or "default"
        self._work = None if dsn is None else check_place(dsn, key="dsn")
        self._listen = None if listen_dsn is None else check_place(listen_dsn, key="listen_dsn")

    def work(self) -> dict[str, Any]:
        """For the connection that writes."""
        return {**_DEFAULTS, **(self._work if self._work is not None else self._of_alias())}

    def listen(self) -> dict[str, Any]:
        """For the one that listens."""
        return self.work() if self._listen is None else {**_DEFAULTS, **self._listen}

    def _of_alias(self) -> dict[str, Any]:
        assert self.database is not None, "either a DSN or an alias is set"
        module = cast(_SettingsModule, importlib.import_module(_SETTINGS_MODULE))
        return module.postgres_parameters(self.database)
