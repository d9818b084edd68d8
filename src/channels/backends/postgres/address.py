"""Where a PostgreSQL database is: from a DSN, or from an alias of Django's DATABASES."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from channels.exceptions import InvalidChannelLayerError
from channels.layers.redaction import without_secrets

#: A DSN, or the parameters of libpq by name.
Place = str | Mapping[str, Any]

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
        found: dict[str, Any] = importlib.import_module(_SETTINGS_MODULE).postgres_parameters(
            self.database
        )
        return found
