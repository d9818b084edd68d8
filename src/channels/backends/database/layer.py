"""The layer in a database of Django's, as settings name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections

from channels.backends.database.options import DatabaseOptions
from channels.backends.database.session import Session
from channels.backends.database.store import Store
from channels.backends.database.tables import make_tables
from channels.backends.tables.calls import CallLine
from channels.backends.tables.transport import TableTransport
from channels.exceptions import InvalidChannelLayerError
from channels.layers.contract import Capabilities, TransportEvents
from channels.layers.options import layer_options
from channels.layers.process.layer import NodeChannelLayer

#: Seconds that a good-bye may take.
CLOSE_SECONDS: Final = 0.7


class DatabaseTransport(TableTransport):
    """Moves envelopes through tables; see `channels.backends.database`."""

    def __init__(self, alias: str, options: DatabaseOptions, prefix: str) -> None:
        super().__init__(CallLine(options.max_pending), prefix, options.max_messages)
        self.capabilities: Final = Capabilities(delays=True, queue_members=True)
        self.store = Store(alias, make_tables(options.tables), prefix, options.max_messages)
        self._session = Session(self.store, options, self)

    async def start(self, node: str, events: TransportEvents) -> None:
        check_alias(self.store.alias)
        self.begin(node, events)
        self._session.start(node, events)

    async def stop(self) -> None:
        await self._session.stop(CLOSE_SECONDS)
        self.forget()

    def abandon(self) -> None:
        self._session.abandon()
        self.forget()

    def statistics(self) -> Mapping[str, int]:
        return self.counted()


class DatabaseChannelLayer(NodeChannelLayer):
    """Channels and groups in any database of Django's.

    Args:
        database: An alias of DATABASES.
        prefix: What keeps layers in the same tables apart.
        config: `DatabaseOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: If a key is unknown or cannot be understood.
        InvalidOption: If an option is out of bounds.
    """

    def __init__(
        self, database: str = DEFAULT_DB_ALIAS, prefix: str = "asgi", **config: Any
    ) -> None:
        if not isinstance(prefix, str) or len(prefix) > 100:
            raise InvalidChannelLayerError(
                f"prefix={prefix!r}: expected a text of at most 100 characters."
            )
        names = {field.name for field in fields(DatabaseOptions)}
        own = DatabaseOptions(**{key: config.pop(key) for key in names & config.keys()})
        options = layer_options(config, layer=type(self).__name__)
        self.database_options = own
        super().__init__(DatabaseTransport(database, own, prefix), options)


def check_alias(alias: str) -> None:
    """A database that several connections can share.

    Raises:
        InvalidChannelLayerError: If there is none of this name, or it is in memory.
    """
    if alias not in connections.settings:
        raise InvalidChannelLayerError(
            f"database={alias!r}: expected an alias of DATABASES, which has "
            f"{', '.join(sorted(connections.settings))}."
        )
    found = connections.settings[alias]
    name = str(found["NAME"])
    # The second is how Django names a test database in memory.
    if found["ENGINE"].endswith("sqlite3") and (":memory:" in name or "mode=memory" in name):
        raise InvalidChannelLayerError(
            f"database={alias!r} is an SQLite database in memory, which each connection has for "
            "itself: expected a file, or InMemoryChannelLayer for one process."
        )
