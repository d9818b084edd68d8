"""Sends that join a transaction of the caller's: rows written on the caller's own connection.

What goes to a queue lies there as soon as the transaction commits.  An entry of the log lies in the
outbox until then, since the log's ids are in the order of commits; whoever ticks first moves it on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from channels.backends.postgres.calls import NEVER
from channels.backends.postgres.schema import Schema
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
        call = f"SELECT first, woken FROM {schema.function('carry_out')}"
        self._call = f"{call}(%s, %s, %s, %s, %s, %s, %s, %s)"
        # To its queues; for a node, whose hash no group has, to none.
        self._log = (
            f"WITH logged AS (INSERT INTO {schema.table('outbox')} (hash, expires, payload) "
            f"VALUES (%s, %s, %s)) {call}('g', %s, 0, 0, %s, %s, %s, %s)"
        )
        self._delayed = (
            f"SELECT count(*) FROM {schema.table('queue')} "
            "WHERE prefix = %s AND lease = 0 AND due > 0"
        )
        self._wake = f"SELECT {schema.function('wake')}(%s::text[])"

    def group_send(self, connection: CallerConnection, group: str, payload: bytes) -> None:
        """Send an encoded message to a group."""
        self._prepare(connection)
        envelope = self._envelope(Kind.GROUP, group, payload, self._expiry())
        self._append_to_log(connection, "g", group, envelope)

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
            self._append_to_log(connection, "n", node, envelope)
            return
        envelope = self._envelope(Kind.CHANNEL, channel, payload, life)
        queue = self._transport.hash_of("q", channel)
        if delay:
            due = math.ceil((self._now() + delay) * 1000)
            (count,) = self._row(connection, self._delayed, self._transport.prefix)
            if count >= self._max_delayed:
                raise ChannelFull(
                    f"{self._max_delayed} delayed messages are pending already (max_delayed)."
                )
            self._row(connection, self._call, "w", queue, due, 0, *self._content(envelope))
            self._wake_after_commit(connection, [str(DUE)])
            return
        capacity = self._node.capacity_of(channel)
        first, woken = self._row(
            connection, self._call, "q", queue, 0, capacity, *self._content(envelope)
        )
        if first < 0:
            raise ChannelFull(f"{channel} holds its capacity of {capacity} unread messages.")
        self._wake_after_commit(connection, woken)

    def _now(self) -> float:
        return time.monotonic() + self._transport.clock_offset

    def _envelope(self, kind: Kind, name: str, payload: bytes, life: float | None) -> Envelope:
        """One that lives so long from the call on, not from the commit; None: for ever."""
        deadline = 0 if life is None else int((self._now() + life) * 1000)
        # A sender of its own: it arrives when its transaction commits, which may be long after
        # what this process has sent since.
        envelope = Envelope(kind, name, payload, sender=new_sender(), seq=1, deadline=deadline)
        return envelope if self._node.seal is None else self._node.seal.close(envelope)

    def _content(self, envelope: Envelope) -> tuple[Any, ...]:
        """Deadline, payload, prefix and time, as for the function in the database."""
        expires, now = envelope.deadline or NEVER, int(self._now() * 1000)
        return expires, envelope.encoded, self._transport.prefix, now

    def _append_to_log(
        self, connection: CallerConnection, kind: str, name: str, envelope: Envelope
    ) -> None:
        content, hashed = self._content(envelope), self._transport.hash_of(kind, name)
        _, woken = self._row(connection, self._log, hashed, *content[:2], hashed, *content)
        self._wake_after_commit(connection, [*woken, str(DUE)])

    def _row(self, connection: CallerConnection, statement: str, *parameters: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()

    def _wake_after_commit(self, connection: CallerConnection, woken: list[str]) -> None:
        wake = partial(self._row, connection, self._wake, woken)
        on_commit = getattr(connection, "on_commit", None)
        if on_commit is None:
            wake()
        else:
            # The next poll or tick of any process finds it, should this process end before that.
            on_commit(wake, robust=True)

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
                cursor.execute(self._schema.statements["clock"], ())
                for now, _ in cursor.fetchall():
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
