"""Sends that join a transaction of the caller's: rows written on the caller's own connection.

They lie in the outbox, or with what is delayed.  A row there is nobody's business before the
commit; after it, whoever ticks first moves it on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from channels.backends.postgres.calls import NEVER
from channels.backends.postgres.schema import CLOCK, Schema
from channels.backends.postgres.table_store import DUE
from channels.backends.postgres.transport import TableTransport
from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import new_sender, node_of
from channels.layers.process.later import pack_later
from channels.layers.process.node import Node


class CallerConnection(Protocol):
    """A connection of Django's or of psycopg's.

    One that has `on_commit`, as Django's, wakes the readers up after the commit; with others the
    wake-up is part of the transaction, whose commit then takes turns with all that notify.
    """

    def cursor(self) -> AbstractContextManager[Any]: ...


class AtomicSender:
    """Writes messages on connections of the caller's.

    Args:
        expiry: Seconds that a message for a group lives.
        max_delayed: How many delayed messages may be pending.
    """

    def __init__(
        self,
        transport: TableTransport,
        schema: Schema,
        node: Node,
        expiry: Callable[[], float],
        max_delayed: int,
    ) -> None:
        self._transport = transport
        self._schema = schema
        self._node = node
        self._expiry = expiry
        self._max_delayed = max_delayed
        self._is_prepared = False
        queue, outbox, held = map(schema.table, ("queue", "outbox", "held"))
        insert = (
            f"INSERT INTO {outbox} (kind, hash, prefix, target, expires, payload) "
            "SELECT %s, %s, %s, %s, %s, %s"
        )
        self._log = f"{insert} RETURNING 1"
        self._append = (
            f"{insert} WHERE %s > (SELECT count(*) FROM ("
            f"SELECT FROM {queue} WHERE hash = %s AND expires > %s "
            f"UNION ALL SELECT FROM {outbox} WHERE hash = %s) unread) RETURNING 1"
        )
        self._hold = (
            f"INSERT INTO {held} (hash, prefix, target, expires, payload, due) "
            "SELECT %s, %s, %s, %s, %s, %s WHERE %s > (SELECT count(*) FROM "
            f"{held} WHERE prefix = %s AND place IS NULL) RETURNING 1"
        )
        self._clock = f"SELECT {CLOCK} + shift FROM {schema.table('meta')}"
        self._wake = f"SELECT {schema.function('wake')}(ARRAY['{DUE}'])"

    def group_send(self, connection: CallerConnection, group: str, payload: bytes) -> None:
        """Send an encoded message to a group."""
        self._prepare(connection)
        envelope = self._envelope(Kind.GROUP, group, payload, self._expiry())
        self._insert(connection, self._log, ("g", *self._row("g", group, envelope)))

    def send(
        self, connection: CallerConnection, channel: str, payload: bytes, delay: float
    ) -> None:
        """Send an encoded message to a channel."""
        self._prepare(connection)
        node = node_of(channel)
        life = self._node.life_of(channel)
        if life is not None:
            life += delay
        if node is not None:
            kind = Kind.CHANNEL
            if delay:
                kind, payload = Kind.LATER, pack_later(self._now() + delay, payload)
            envelope = self._envelope(kind, channel, payload, life)
            self._insert(connection, self._log, ("n", *self._row("n", node, envelope)))
            return
        envelope = self._envelope(Kind.CHANNEL, channel, payload, life)
        row = self._row("q", channel, envelope)
        if delay:
            due = math.ceil((self._now() + delay) * 1000)
            bound = self._max_delayed
            if not self._insert(connection, self._hold, (*row, due, bound, self._transport.prefix)):
                raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")
            return
        capacity = self._node.capacity_of(channel)
        unread = (capacity, row[0], int(self._now() * 1000), row[0])
        if not self._insert(connection, self._append, ("q", *row, *unread)):
            raise ChannelFull(f"{channel} holds its capacity of {capacity} unread messages.")

    def _now(self) -> float:
        return time.monotonic() + self._transport.clock_offset

    def _envelope(self, kind: Kind, name: str, payload: bytes, life: float | None) -> Envelope:
        """One that lives so long from the call on, not from the commit; None: for ever."""
        deadline = 0 if life is None else int((self._now() + life) * 1000)
        # A sender of its own: it arrives when its transaction commits, which may be long after
        # what this process has sent since.
        envelope = Envelope(kind, name, payload, sender=new_sender(), seq=1, deadline=deadline)
        return envelope if self._node.seal is None else self._node.seal.close(envelope)

    def _row(self, kind: str, name: str, envelope: Envelope) -> tuple[Any, ...]:
        transport = self._transport
        expires = envelope.deadline or NEVER
        return transport.hash_of(kind, name), transport.prefix, name, expires, envelope.encoded

    def _insert(
        self, connection: CallerConnection, statement: str, parameters: tuple[Any, ...]
    ) -> bool:
        """Write a row, and have it looked at after the commit; False if there was no room."""
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            if cursor.fetchone() is None:
                return False
            on_commit = getattr(connection, "on_commit", None)
            if on_commit is None:
                cursor.execute(self._wake, ())
            else:
                # Whoever polls finds it, should this process end before that.
                on_commit(partial(self._wake_up, connection), robust=True)
        return True

    def _wake_up(self, connection: CallerConnection) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self._wake, ())

    def _prepare(self, connection: CallerConnection) -> None:
        """Have the tables made if nobody has done so, and learn their time.

        Raises:
            InvalidChannelLayerError: If it is another database, or they cannot be seen even then.
        """
        vendor = getattr(connection, "vendor", "postgresql")
        if vendor != "postgresql":
            raise InvalidChannelLayerError(
                f"Found a connection to {vendor}: a send joins a transaction only of the "
                "PostgreSQL database that the layer is in."
            )
        if self._is_prepared:
            return
        with connection.cursor() as cursor:
            self._ensure_tables(cursor)
            if not self._transport.session.is_up:
                cursor.execute(self._clock, ())
                for (now,) in cursor.fetchall():
                    self._transport.session.clock_offset = now / 1000 - time.monotonic()
        self._is_prepared = True

    def _ensure_tables(self, cursor: Any) -> None:
        name = self._schema.function("wake")
        for attempt in range(2):
            cursor.execute("SELECT to_regproc(%s)", (name,))
            if cursor.fetchone()[0] is not None:
                return
            if attempt == 0:
                self._node.link.owner.call_sync(self._node.link.start, self._node.link.patience)
                # In an open transaction the server looks again at its cache of names when it locks
                # a table that it had not locked yet; this is one that nobody uses.
                cursor.execute("SELECT FROM pg_catalog.pg_conversion LIMIT 0", ())
        raise InvalidChannelLayerError(
            f"The connection's database has no function {name}: expected the database that the "
            "layer is in, and the schema in its search path."
        )
