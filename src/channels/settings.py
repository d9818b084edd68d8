"""Django's settings, for the wings below that know no Django."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.signals import setting_changed
from django.db import connections
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from channels.exceptions import InvalidChannelLayerError
from channels.layers.process.layer import NodeChannelLayer
from channels.layers.registry import channel_layers

#: Key of DATABASES -> parameter of libpq.
_POSTGRES_PARAMETERS: Final = {
    "NAME": "dbname",
    "USER": "user",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
}
#: What OPTIONS may hold for Django alone.
_DJANGO_OPTIONS: Final = frozenset(
    {"assume_role", "isolation_level", "pool", "server_side_binding", "cursor_factory", "context"}
)


def channel_layer_configs() -> Mapping[str, Mapping[str, Any]]:
    """CHANNEL_LAYERS; empty where it is not set, and where Django is not set up at all."""
    if not settings.configured and not os.environ.get(ENVIRONMENT_VARIABLE):
        return {}
    watch()
    configs: Mapping[str, Mapping[str, Any]] | None = getattr(settings, "CHANNEL_LAYERS", None)
    return configs or {}


def has_routing(alias: str) -> bool:
    """True if a layer's workers answer connections, in the way of Channels 1; makes no layer."""
    configs: Any = getattr(settings, "CHANNEL_LAYERS", None)
    entry = configs.get(alias) if isinstance(configs, Mapping) else None
    return isinstance(entry, Mapping) and "ROUTING" in entry


def postgres_parameters(alias: str) -> dict[str, Any]:
    """How to reach a database of DATABASES, in the words of libpq; a test's is the test database.

    Raises:
        InvalidChannelLayerError: If there is no such alias, or it is not a PostgreSQL.
    """
    if alias not in connections.settings:
        raise InvalidChannelLayerError(
            f"database={alias!r}: expected an alias of DATABASES, which has "
            f"{', '.join(sorted(connections.settings))}."
        )
    found = connections.settings[alias]
    vendor = getattr(connections[alias], "vendor", "")
    if vendor != "postgresql":
        raise InvalidChannelLayerError(
            f"database={alias!r}: expected a PostgreSQL, found {vendor or found['ENGINE']}. Name "
            "another alias, or the server by dsn, or use DatabaseChannelLayer."
        )
    given = {
        parameter: found[key] for key, parameter in _POSTGRES_PARAMETERS.items() if found.get(key)
    }
    options = found.get("OPTIONS", {})
    return given | {key: value for key, value in options.items() if key not in _DJANGO_OPTIONS}


@cache
def watch() -> None:
    """Connect on first use, so that importing has no effect."""
    setting_changed.connect(
        channel_layers._reset_backends, dispatch_uid="channels.settings.channel_layers"
    )
    connection_created.connect(_close_layers, dispatch_uid="channels.settings.test_databases")


def _close_layers(*, connection: BaseDatabaseWrapper, **_: object) -> None:
    """Close the layers when a test database is to be made or dropped, which their connections bar.

    Django does that, and little else, on a connection to no database.  A parallel worker of its
    tests has a connection of its own before it starts processes, mostly: these shall find it.
    """
    channel_layers.follow_test_run()
    if connection.alias == NO_DB_ALIAS:
        for layer in list(channel_layers.backends.values()):
            if isinstance(layer, NodeChannelLayer):
                async_to_sync(layer.close)()
