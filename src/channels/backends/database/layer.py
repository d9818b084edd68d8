"""The layer in a database of Django's, as settings name it."""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS

from channels.backends.database.options import DatabaseOptions
from channels.backends.database.store import DatabaseStore
from channels.backends.postgres.transport import TableTransport
from channels.exceptions import InvalidChannelLayerError
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer


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
        own, options = split_options(DatabaseOptions, config, layer=type(self))
        store = DatabaseStore(database, own, prefix)
        super().__init__(TableTransport(store, own, prefix), options)
