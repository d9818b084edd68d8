"""The tables of the layer: models outside of any app, made by the layer and not by migrations."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.apps.registry import Apps
from django.db import DatabaseError, connections, models

from channels.exceptions import ChannelsError

#: The row of the counter.
ONE: Final = 1


class Tables:
    """Their rows in one database; what they are for says `channels.backends.postgres.schema`.

    There is no outbox.  `counter` is its `meta`, with the last id of log and queues.

    Args:
        begin: What their names begin with.
    """

    def __init__(self, begin: str, alias: str) -> None:
        self._begin = begin
        self._alias = alias
        self._registry = Apps()
        self._models: list[Any] = []
        self.message = self._rows(
            "message",
            id=_number(primary_key=True),
            hash=_number(),
            expires=_number(db_index=True),
            payload=models.BinaryField(),
        )
        self.queue = self._rows(
            "queue",
            ("hash", "due", "id"),
            id=_number(primary_key=True),
            hash=_number(),
            prefix=models.CharField(max_length=100),
            due=_number(default=0, db_index=True),
            lease=_number(default=0, db_index=True),
            attempts=_number(default=0),
            expires=_number(db_index=True),
            payload=models.BinaryField(),
        )
        self.member = self._rows(
            "member",
            ("hash", "queue"),
            id=models.BigAutoField(primary_key=True),
            hash=_number(),
            queue=_number(),
            prefix=models.CharField(max_length=100),
            capacity=_number(),
            expires=_number(),
        )
        self.node = self._rows(
            "node",
            hash=_number(primary_key=True),
            epoch=_number(),
            seen=_number(),
            batch=_number(),
            journal=models.BinaryField(),
        )
        self.counter = self._rows(
            "counter",
            id=models.IntegerField(primary_key=True),
            last=_number(default=0),
            horizon=_number(default=0),
            shift=_number(default=0),
            incarnation=models.CharField(max_length=32),
        )

    def _rows(self, name: str, /, *indexed: tuple[str, ...], **columns: Any) -> Any:
        """All rows of a table with these columns, and with an index for each tuple of them."""
        meta = {
            "apps": self._registry,
            "app_label": "channels_database",
            "db_table": f"{self._begin}_{name}",
            "indexes": [
                models.Index(fields=each, name=f"{self._begin[:20]}_{name}_{each[-1][0]}")
                for each in indexed
            ],
        }
        body = {"__module__": __name__, "Meta": type("Meta", (), meta), **columns}
        model: Any = type(name.title(), (models.Model,), body)
        self._models.append(model)
        return model.objects.using(self._alias)

    def create(self, may_create: bool) -> None:
        """Make the tables that are not there, and the counter's row.

        Raises:
            ChannelsError: If some are missing and `may_create` is not set, or one is of another
                layer.
        """
        connection = connections[self._alias]
        for model in self._models:
            name = model._meta.db_table
            if name in connection.introspection.table_names():
                self._check_columns(model)
                continue
            if not may_create:
                raise ChannelsError(
                    f"The database {self._alias!r} has no table {name}: expected the tables of the "
                    "channel layer, which it makes itself with create_tables=True."
                )
            try:
                with connection.schema_editor() as editor:
                    editor.create_model(model)
            except DatabaseError:
                # Another process was faster, or it cannot be made.
                if name not in connection.introspection.table_names():
                    raise
        self.counter.get_or_create(id=ONE, defaults={"incarnation": uuid.uuid4().hex})

    def _check_columns(self, model: Any) -> None:
        connection, name = connections[self._alias], model._meta.db_table
        with connection.cursor() as cursor:
            columns = connection.introspection.get_table_description(cursor, name)
        present = {column.name for column in columns}
        missing = [field.column for field in model._meta.fields if field.column not in present]
        if missing:
            raise ChannelsError(
                f"The table {name} in the database {self._alias!r} is not this layer's: it has no "
                f"{', '.join(missing)}. Set `tables` in CONFIG, with which its tables' names begin."
            )


def _number(**options: Any) -> models.BigIntegerField[Any, Any]:
    """A column of 64 bits."""
    return models.BigIntegerField(**options)
