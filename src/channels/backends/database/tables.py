"""The tables of the layer: models outside of any app, made by the layer and not by migrations."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from django.apps.registry import Apps
from django.db import DatabaseError, connections, models

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
            ChannelsError: If some are missing and `may_create` is not set.
        """
        connection = connections[alias]
        for model in self.all:
            name = model._meta.db_table
            if name in connection.introspection.table_names():
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


def make_tables(begin: str) -> Tables:
    """The models of tables whose names begin so."""
    registry = Apps()

    def model(name: str, /, *indexed: tuple[str, ...], **columns: Any) -> Any:
        indexes = [
            models.Index(fields=fields, name=f"{begin[:20]}_{name}_{fields[-1][0]}")
            for fields in indexed
        ]
        meta = {
            "apps": registry,
            "app_label": "channels_database",
            "db_table": f"{begin}_{name}",
            "indexes": indexes,
        }
        body = {"__module__": __name__, "Meta": type("Meta", (), meta), **columns}
        return type(name.title(), (models.Model,), body)

    number = models.BigIntegerField

    def content() -> dict[str, Any]:
        return {
            "hash": number(),
            "prefix": models.CharField(max_length=100),
            "expires": number(db_index=True),
            "payload": models.BinaryField(),
        }

    def key() -> Any:
        return models.BigAutoField(primary_key=True)

    return Tables(
        message=model("message", id=number(primary_key=True), **content()),
        queue=model("queue", ("hash", "place"), id=key(), place=number(), **content()),
        held=model(
            "held",
            ("due", "id"),
            ("prefix", "place"),
            id=key(),
            # Of its lease; None: it is on none.
            token=number(null=True, unique=True),
            # That it had in its queue; None: it was never in it.
            place=number(null=True),
            due=number(),
            **content(),
        ),
        member=model(
            "member",
            ("hash", "queue"),
            id=key(),
            hash=number(),
            queue=number(),
            prefix=models.CharField(max_length=100),
            capacity=number(),
            expires=number(),
        ),
        node=model(
            "node",
            name=models.CharField(max_length=40, primary_key=True),
            epoch=number(),
            seen=number(),
            batch=number(),
            journal=models.BinaryField(),
        ),
        counter=model(
            "counter",
            id=models.IntegerField(primary_key=True),
            last=number(default=0),
            horizon=number(default=0),
            shift=number(default=0),
            incarnation=models.CharField(max_length=32),
        ),
    )
