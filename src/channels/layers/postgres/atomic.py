"""Sends that join a transaction of the caller's: rows written on the caller's own connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import new_sender, node_of
from channels.layers.postgres.schema import VERSION
from channels.layers.postgres.transport import PostgresTransport
from channels.layers.tables.calls import NEVER


class Cursor(Protocol):
    """A cursor as DB-API has it."""

    def execute(self, query: Any, params: Sequence[Any]) -> Any: ...

    def fetchone(self) -> Any: ...


class CallerConnection(Protocol):
    """A connection of Django's or of psycopg's.

    One that has `on_commit`, as Django's, wakes the readers up after the commit; with others the
    wake-up is part of the transaction, whose commit then takes turns with all that notify.
    """

    def cursor(self) -> AbstractContextManager[Any]: ...


class AtomicSender:
    """Writes messages on connections of the caller's.

    Args:
        expiry: Seconds that a message lives, from the call on, not from the commit.
        capacity_of: How many unread messages a channel may hold.
        prepare: Makes the tables, on a connection of the layer's own.
    """

    def __init__(
        self,
        transport: PostgresTransport,
        expiry: Callable[[], float],
        capacity_of: Callable[[str], int],
        prepare: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._expiry = expiry
        self._capacity_of = capacity_of
        self._prepare = prepare
        self._is_prepared = False
        schema = transport.schema
        self._send = f"SELECT {schema.function('send')}(%s, %s, %s, %s, %s, %s, %s)"
        self._wake = f"SELECT {schema.function('wake')}(string_to_array(%s, ','))"

    def group_send(self, connection: CallerConnection, group: str, payload: bytes) -> None:
        """Send an encoded message to a group."""
        self._write(connection, "g", group, self._envelope(Kind.GROUP, group, payload), 0)

    def send(self, connection: CallerConnection, channel: str, payload: bytes) -> None:
        """Send an encoded message to a channel."""
        envelope = self._envelope(Kind.CHANNEL, channel, payload)
        node = node_of(channel)
        if node is not None:
            self._write(connection, "n", node, envelope, 0)
            return
        capacity = self._capacity_of(channel)
        if not self._write(connection, "q", channel, envelope, capacity):
            raise ChannelFull(f"{channel} holds its capacity of {capacity} unread messages.")

    def _envelope(self, kind: Kind, name: str, payload: bytes) -> Envelope:
        deadline = time.time() + self._transport.clock_offset + self._expiry()
        # A sender of its own: it arrives when its transaction commits, which may be long after
        # what this process has sent since.
        return Envelope(
            kind, name, payload, sender=new_sender(), seq=1, deadline=int(deadline * 1000)
        )

    def _write(
        self,
        connection: CallerConnection,
        kind: str,
        name: str,
        envelope: Envelope,
        capacity: int,
    ) -> bool:
        """True if it was taken."""
        vendor = getattr(connection, "vendor", "postgresql")
        if vendor != "postgresql":
            raise InvalidChannelLayerError(
                f"Found a connection to {vendor}: a send joins a transaction only of the "
                "PostgreSQL database that the layer is in."
            )
        transport = self._transport
        with connection.cursor() as cursor:
            self._ensure_prepared(cursor)
            cursor.execute(
                self._send,
                (
                    kind,
                    name,
                    transport.hash_of(kind, name),
                    transport.prefix,
                    capacity,
                    envelope.deadline or NEVER,
                    envelope.encoded,
                ),
            )
            woken = cursor.fetchone()[0]
            if woken is None:
                return False
            on_commit = getattr(connection, "on_commit", None)
            if on_commit is None:
                cursor.execute(self._wake, (woken,))
            else:
                # Readers look by themselves, should this process end before it.
                on_commit(self._waker(connection, woken), robust=True)
        return True

    def _waker(self, connection: CallerConnection, woken: str) -> Callable[[], None]:
        # A function of its own: Django names it when it fails.
        def wake_readers() -> None:
            with connection.cursor() as cursor:
                cursor.execute(self._wake, (woken,))

        return wake_readers

    def _ensure_prepared(self, cursor: Cursor) -> None:
        """Have the tables made if nobody has done it yet.

        Raises:
            InvalidChannelLayerError: If they cannot be seen even then.
        """
        if self._is_prepared:
            return
        name = self._transport.schema.function("send")
        for attempt in range(2):
            cursor.execute("SELECT to_regproc(%s)", (name,))
            if cursor.fetchone()[0] is not None:
                self._is_prepared = True
                return
            if attempt == 0:
                self._prepare()
                # In an open transaction the server looks again at its cache of names when it locks
                # a table that it had not locked yet; this is one that nobody uses.
                cursor.execute("SELECT FROM pg_catalog.pg_conversion LIMIT 0", ())
        raise InvalidChannelLayerError(
            f"The connection's database has no function {name} of version {VERSION}: expected the "
            "database that the layer is in, and the schema in its search path."
        )
