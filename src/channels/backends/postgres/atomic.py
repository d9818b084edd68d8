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

from channels.backends.postgres.calls import Call
from channels.backends.postgres.schema import Schema
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

    def group_send(self, connection: CallerConnection, group: str, payload: bytes) -> None:
        """Send an encoded message to a group."""
        self._prepare(connection)
        envelope = self._envelope(Kind.GROUP, group, payload, self._expiry())
        self._carry_out(connection, self._transport.call("g", group, envelope))

    def send(
        self, connection: CallerConnection, channel: str, payload: bytes, delay: float
    ) -> None:
        """Send an encoded message to a channel."""
        self._prepare(connection)
        node, due = node_of(channel), self._now() + delay
        life = self._node.life_of(channel)
        if life is not None:
            life += delay
        kind = Kind.CHANNEL
        if node is not None and delay:
            kind, payload = Kind.LATER, pack_later(due, payload)
        envelope = self._envelope(kind, channel, payload, life)
        if node is not None:
            self._carry_out(connection, self._transport.call("n", node, envelope))
        elif delay:
            bound = self._max_delayed
            call = self._transport.call("w", channel, envelope, bound, math.ceil(due * 1000))
            if not self._carry_out(connection, call):
                raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")
        else:
            capacity = self._node.capacity_of(channel)
            call = self._transport.call("q", channel, envelope, capacity)
            if not self._carry_out(connection, call):
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

    def _carry_out(self, connection: CallerConnection, call: Call) -> bool:
        """Write a message, and wake its readers after the commit; False if there was no room."""
        content = call.hash, call.extra, call.number, call.deadline, call.payload
        now = int(self._now() * 1000)
        with connection.cursor() as cursor:
            arguments = (call.kind, *content, self._transport.prefix, now)
            cursor.execute(self._schema.statements["atomic"], arguments)
            first, woken = cursor.fetchone()
        if first < 0:
            return False
        wake = partial(self._wake, connection, woken)
        on_commit = getattr(connection, "on_commit", None)
        if on_commit is None:
            wake()
        else:
            # The next poll or tick of any process finds it, should this process end before that.
            on_commit(wake, robust=True)
        return True

    def _wake(self, connection: CallerConnection, woken: list[str]) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self._schema.statements["wake"], (woken,))

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
