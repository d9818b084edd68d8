"""What the layer does in the database: plain functions that block, each on a connection of its
thread's.

Whoever writes takes the counter's row first and holds it to the commit.  Under it nothing else is
written, so that counts are exact and ids are in the order of commits.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import msgpack
from django.db import DatabaseError, Error, connections, transaction
from django.db.models import F, FloatField
from django.db.models.expressions import RawSQL

from channels.backends.database.batch import Batch
from channels.backends.database.options import DatabaseOptions
from channels.backends.database.tables import ONE, make_tables
from channels.backends.postgres.calls import Call, Numbers
from channels.backends.postgres.table_store import Refused, Registration, TablesReplaced
from channels.exceptions import ChannelsError

#: Rows of one page, and ids in one query; Oracle takes no more than 1,000 values in a list.
PAGE: Final = 500
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 500
#: Held messages that are put into their queues in one go.
MOST_DUE: Final = 100
#: Kind of database -> seconds since 1970 by its own clock, whatever its zone.
CLOCKS: Final[dict[str, str]] = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "mysql": "UNIX_TIMESTAMP(CURRENT_TIMESTAMP(6))",
    "postgresql": "EXTRACT(EPOCH FROM CLOCK_TIMESTAMP())",
    "oracle": "(CAST(SYS_EXTRACT_UTC(SYSTIMESTAMP) AS DATE) - DATE '1970-01-01') * 86400",
}


class FencedOff(ChannelsError):
    """Another connection of the same process has taken this one's place."""


class Statements:
    """The statements, for one alias and prefix.  Times are milliseconds by the tables' clock."""

    def __init__(self, alias: str, options: DatabaseOptions, prefix: str) -> None:
        self.alias = alias
        self.tables = make_tables(options.tables)
        self._options = options
        self._prefix = prefix

    def _rows(self, model: Any) -> Any:
        return model.objects.using(self.alias)

    @property
    def _counters(self) -> Any:
        return self._rows(self.tables.counter).filter(id=ONE)

    def _counter(self, counters: Any = None) -> Any:
        counter = (counters or self._counters).first()
        if counter is None:
            raise TablesReplaced("the counter of the channel layer's tables has gone")
        return counter

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction that holds the counter's row; gives it."""
        with transaction.atomic(using=self.alias):
            counters = self._counters
            if connections[self.alias].features.has_select_for_update:
                counters = counters.select_for_update()
            else:
                # SQLite lets one write at a time: who writes first holds all.
                counters.update(last=F("last"))
            yield self._counter(counters)

    # Connections.

    def open(self) -> None:
        """Prepare this thread's connection."""
        database = connections[self.alias]
        # With DEBUG Django keeps the last 9,000 statements of each connection, payloads and all.
        database.queries_log = deque(maxlen=0)
        name = str(database.settings_dict["NAME"])
        if database.vendor == "sqlite" and "mode=memory" in name:
            # A test's database, in which the test's own transaction would lock out all others.
            own = os.path.join(_folder(os.getpid()).name, self.alias)
            database.settings_dict = {**database.settings_dict, "NAME": own}

    def create(self) -> None:
        """Make the tables if they are missing."""
        self.tables.create(self.alias, self._options.create_tables)

    def close(self) -> None:
        """Close this thread's connection."""
        connections[self.alias].close()

    # What a process does.

    def register(self, node: str) -> Registration:
        """Raise this process's fence, and read its journal."""
        nodes = self._rows(self.tables.node)
        now, shift = self.clock()
        with self._writing() as counter:
            row, _ = nodes.get_or_create(
                name=node, defaults={"epoch": 0, "seen": now, "batch": 0, "journal": b""}
            )
            nodes.filter(name=node).update(epoch=row.epoch + 1, seen=now)
        results = msgpack.unpackb(bytes(row.journal)) if row.journal else []
        fence, batch = row.epoch + 1, row.batch
        return Registration(fence, batch, results, counter.incarnation, counter.last, now, shift)

    def leave(self, node: str, fence: int) -> None:
        self._rows(self.tables.node).filter(name=node, epoch=fence).delete()

    def clock(self) -> tuple[int, int]:
        clock = RawSQL(CLOCKS[connections[self.alias].vendor], (), FloatField())
        found = self._counters.values_list(clock, "shift").first()
        if found is None:
            raise TablesReplaced("the counter of the channel layer's tables has gone")
        return int(found[0] * 1000) + found[1], found[1]

    def set_shift(self, before: int, after: int) -> None:
        self._counters.filter(shift=before).update(shift=after)

    def write(
        self, node: str, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], dict[int, bytes], int]:
        """Carry out a batch; what came of it, and the log's last id.

        Raises:
            FencedOff: If another connection of this process has registered since.
            Refused: If the database will not, on a connection that works.
            DatabaseError: If the connection broke.
        """
        database = connections[self.alias]
        before = database.connection
        try:
            return self._write(node, fence, number, now, calls)
        except DatabaseError as error:
            # Where it cannot roll back, Django makes a new connection.
            if database.connection is before and self._answers():
                raise Refused(*error.args) from error
            raise

    def _write(
        self, node: str, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], dict[int, bytes], int]:
        with self._writing() as counter:
            batch = self._batch(now, counter)
            results = [batch.carry_out(call) for call in calls]
            batch.insert()
            self._note_last(counter, batch)
            found = self._rows(self.tables.node).filter(name=node, epoch=fence)
            if not found.update(batch=number, seen=now, journal=msgpack.packb(results)):
                raise FencedOff("this connection has been replaced")
        return results, batch.leased, batch.last

    def _answers(self) -> bool:
        try:
            self._counter()
        except Error:
            return False
        return True

    def has_any(self, now: int, hashes: Collection[int]) -> bool:
        """True if one of these queues holds something."""
        rows = self._rows(self.tables.queue)
        return bool(rows.filter(hash__in=list(hashes), expires__gt=now).exists())

    def tick(self, now: int) -> tuple[int | None, int, int]:
        """As `TableStore.tick`, and the log's last id or 0."""
        held = self._rows(self.tables.held)

        def wait() -> int | None:
            due = held.order_by("due").values_list("due", flat=True).first()
            return None if due is None else max(0, due - now)

        # Most looks find nothing: no need to take the counter's row.
        left = wait()
        if left is None or left > 0:
            return left, 0, 0
        with self._writing() as counter:
            batch = self._batch(now, counter)
            run_out = batch.release_due(MOST_DUE)
            self._note_last(counter, batch)
        return wait(), run_out, batch.last

    def clean(self, now: int, node_life: int) -> tuple[int, bool]:
        """As `TableStore.clean`."""

        def expired(model: Any) -> list[int]:
            rows = self._rows(model).filter(expires__lte=now).order_by("expires")
            return list(rows.values_list("id", flat=True)[:CLEAN_BATCH])

        messages, unread = expired(self.tables.message), expired(self.tables.queue)
        if messages:
            with self._writing() as counter:
                self._rows(self.tables.message).filter(id__in=messages).delete()
                self._counters.update(horizon=max(counter.horizon, *messages))
        self._rows(self.tables.queue).filter(id__in=unread).delete()
        self._rows(self.tables.member).filter(expires__lte=now).delete()
        self._rows(self.tables.node).filter(seen__lte=now - node_life).delete()
        count = len(messages) + len(unread)
        return count, count >= CLEAN_BATCH

    def _batch(self, now: int, counter: Any) -> Batch:
        limit = self._options.max_messages
        return Batch(self.tables, self.alias, self._prefix, now, counter, limit)

    def _note_last(self, counter: Any, batch: Batch) -> None:
        if batch.last != counter.last:
            self._counters.update(last=batch.last)

    # Reading.

    def last(self) -> int:
        """The log's last id; all up to it can be seen."""
        return int(self._counter().last)

    def page(self, cursor: int) -> tuple[Any, list[tuple[int, int]]]:
        """The counter, and (id, hash) of what follows the cursor."""
        counter = self._counter()
        rows = self._rows(self.tables.message).filter(id__gt=cursor, id__lte=counter.last)
        return counter, list(rows.order_by("id").values_list("id", "hash")[:PAGE])

    def payloads(self, ids: Sequence[int]) -> tuple[dict[int, bytes], int]:
        """The payloads of messages, by id; and the highest id that was cleaned away by now."""
        rows = self._rows(self.tables.message).filter(id__in=ids).values_list("id", "payload")
        found = {number: bytes(payload) for number, payload in rows}
        return found, self._counter().horizon


@cache
def _folder(process: int) -> tempfile.TemporaryDirectory[str]:  # noqa: ARG001 - a child has its own
    """Where this process keeps tables in place of databases in memory; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="channels-")
