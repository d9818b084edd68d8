"""Sends that join a transaction of the caller's: rows written on the caller's own connection."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from channels.backends.postgres.schema import VERSION
from channels.backends.postgres.transport import PostgresTransport
from channels.backends.tables.calls import NEVER
from channels.exceptions import ChannelFull, InvalidChannelLayerError
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import new_sender, node_of
from channels.layers.process.later import pack_later
from channels.layers.process.node import Node


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
        expiry: Seconds that a message for a group lives.
        max_delayed: How many delayed messages may be pending.
    """

    def __init__(
        self,
        transport: PostgresTransport,
        node: Node,
        expiry: Callable[[], float],
        max_delayed: int,
    ) -> None:
        self._transport = transport
        self._node = node
        self._expiry = expiry
        self._max_delayed = max_delayed
        self._is_prepared = False
        schema = transport.schema
        self._send = f"SELECT {schema.function('send')}(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        self._wake = f"SELECT {schema.function('wake')}(string_to_array(%s, ','))"

    def group_send(self, connection: CallerConnection, group: str, payload: bytes) -> None:
        """Send an encoded message to a group."""
        envelope = self._envelope(Kind.GROUP, group, payload, self._expiry())
        self._write(connection, "g", group, envelope)

    def send(
        self, connection: CallerConnection, channel: str, payload: bytes, delay: float
    ) -> None:
        """Send an encoded message to a channel."""
        node = node_of(channel)
        life = self._node.life_of(channel)
        if life is not None:
            life += delay
        if node is not None:
            kind = Kind.CHANNEL
            if delay:
                kind, payload = Kind.LATER, pack_later(self._now() + delay, payload)
            self._write(connection, "n", node, self._envelope(kind, channel, payload, life))
            return
        envelope = self._envelope(Kind.CHANNEL, channel, payload, life)
        if delay:
            due = math.ceil((self._now() + delay) * 1000)
            if not self._write(connection, "q", channel, envelope, 0, due):
                raise ChannelFull(
                    f"{self._max_delayed} delayed messages are pending already (max_delayed)."
                )
            self._tell_ticker(connection, delay)
            return
        capacity = self._node.capacity_of(channel)
        if not self._write(connection, "q", channel, envelope, capacity):
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

    def _tell_ticker(self, connection: CallerConnection, delay: float) -> None:
        """Look when it is due; and after the commit, which may come later than that."""
        due = time.monotonic() + delay
        link, ticker = self._node.link, self._transport.ticker

        def look_when_due() -> None:
            link.tell(lambda: ticker.due_in(max(0.0, due - time.monotonic())))

        look_when_due()
        on_commit = getattr(connection, "on_commit", None)
        if on_commit is not None:
            on_commit(look_when_due, robust=True)

    def _write(
        self,
        connection: CallerConnection,
        kind: str,
        name: str,
        envelope: Envelope,
        capacity: int = 0,
        due: int = 0,
    ) -> bool:
        """True if it was taken.

        Args:
            due: When it enters its queue, in milliseconds; 0: now.
        """
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
                    due,
                    self._max_delayed,
                ),
            )
            woken = cursor.fetchone()[0]
            if not woken:
                return woken is not None
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
                self._node.link.owner.call_sync(self._node.link.start, self._node.link.patience)
                # In an open transaction the server looks again at its cache of names when it locks
                # a table that it had not locked yet; this is one that nobody uses.
                cursor.execute("SELECT FROM pg_catalog.pg_conversion LIMIT 0", ())
        raise InvalidChannelLayerError(
            f"The connection's database has no function {name} of version {VERSION}: expected the "
            "database that the layer is in, and the schema in its search path."
        )
