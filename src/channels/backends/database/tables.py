"""The tables of the layer: models outside of any app, made by the layer and not by migrations."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.apps.registry import Apps
from django.db import DatabaseError, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from channels.exceptions import ChannelsError

#: The row of the counter.
ONE: Final = 1


@dataclass(frozen=True, slots=True)
class Tables:
    """The models, for one beginning of their tables' names; as on PostgreSQL, but for `counter`.

    Attributes:
        message: The log.
        queue: Unread messages of channels that no process owns.
        held: Messages that are to enter their queue later: delayed ones, and those that were taken
            from it on lease or are tried again.
        member: Such channels as members of groups.
        node: Processes: when they were last heard of, their fence and their journal.
        counter: One row: the log's last id and incarnation, the highest id cleaned away, and what
            is to be added to the database's clock.
    """

    message: Any
    queue: Any
    held: Any
    member: Any
    node: Any
    counter: Any

    @property
    def all(self) -> list[Any]:
        return [self.message, self.queue, self.held, self.member, self.node, self.counter]

    def create(self, alias: str, may_create: bool) -> None:
        """Make the tables that are not there, and the counter's row.

        Raises:
            ChannelsError: If some are missing and `may_create` is not set, or one is of another
                layer.
        """
        connection = connections[alias]
        for model in self.all:
            name = model._meta.db_table
            if name in connection.introspection.table_names():
                _check_columns(connection, model)
                continue
            if not may_create:
                raise ChannelsError(
                    f"The database {alias!r} has no table {name}: expected the tables of the "
                    "channel layer, which it makes itself with create_tables=True."
                )
            try:
                with connection.schema_editor() as editor:
                    editor.create_model(model)
            except DatabaseError:
                # Another process was faster, or it cannot be made.
                if name not in connection.introspection.table_names():
                    raise
        self.counter.objects.using(alias).get_or_create(
            id=ONE, defaults={"incarnation": uuid.uuid4().hex}
        )

    def drop(self, alias: str) -> None:
        """Remove those that are there."""
        connection = connections[alias]
        present = connection.introspection.table_names()
        with connection.schema_editor() as editor:
            for model in self.all:
                if model._meta.db_table in present:
                    editor.delete_model(model)


def _check_columns(connection: BaseDatabaseWrapper, model: Any) -> None:
    name = model._meta.db_table
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, name)
    present = {column.name for column in columns}
    missing = [field.column for field in model._meta.fields if field.column not in present]
    if missing:
        raise ChannelsError(
            f"The table {name} in the database {connection.alias!r} is not this layer's: it has no "
            f"{', '.join(missing)}. Set `tables` in CONFIG, with which its tables' names begin."
        )


class Maker:
    """Makes the models of tables whose names begin so."""

    def __init__(self, begin: str) -> None:
        self._begin = begin
        self._registry = Apps()

    def model(self, name: str, /, *indexed: tuple[str, ...], **columns: Any) -> Any:
        """A model with these columns, and with an index for each tuple of their names."""
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
        return type(name.title(), (models.Model,), body)

    def message(self, name: str, /, *indexed: tuple[str, ...], **columns: Any) -> Any:
        """A model of messages."""
        columns.setdefault("id", models.BigAutoField(primary_key=True))
        columns |= {
            "hash": number(),
            "prefix": models.CharField(max_length=100),
            "expires": number(db_index=True),
            "payload": models.BinaryField(),
        }
        return self.model(name, *indexed, **columns)


def number(**options: Any) -> models.BigIntegerField[Any, Any]:
    """A column of 64 bits."""
    return models.BigIntegerField(**options)


def make_tables(begin: str) -> Tables:
    """The models of tables whose names begin so."""
    make = Maker(begin)
    return Tables(
        message=make.message("message", id=number(primary_key=True)),
        queue=make.message("queue", ("hash", "place"), place=number()),
        held=make.message(
            "held",
            ("due", "id"),
            ("prefix", "place"),
            # Of its lease; None: it is on none.
            token=number(null=True, unique=True),
            # That it had in its queue; None: it was never in it.
            place=number(null=True),
            due=number(),
        ),
        member=make.model(
            "member",
            ("hash", "queue"),
            id=models.BigAutoField(primary_key=True),
            hash=number(),
            queue=number(),
            prefix=models.CharField(max_length=100),
            capacity=number(),
            expires=number(),
        ),
        node=make.model(
            "node",
            name=models.CharField(max_length=40, primary_key=True),
            epoch=number(),
            seen=number(),
            batch=number(),
            journal=models.BinaryField(),
        ),
        counter=make.model(
            "counter",
            id=models.IntegerField(primary_key=True),
            last=number(default=0),
            horizon=number(default=0),
            shift=number(default=0),
            incarnation=models.CharField(max_length=32),
        ),
    )
