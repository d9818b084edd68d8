"""What the layer does in the database: plain functions that block, each on a connection of its
thread's.

Whoever writes takes the counter's row first and holds it to the commit.  Under it nothing else is
written, so that counts are exact and ids are in the order of commits.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import msgpack
from django.db import connections, transaction
from django.db.models import F, FloatField, Q
from django.db.models.expressions import RawSQL

from channels.backends.database.batch import Batch
from channels.backends.database.options import DatabaseOptions
from channels.backends.database.tables import ONE, Tables
from channels.backends.postgres.calls import Call, LeasedRow, Numbers
from channels.backends.postgres.table_store import TablesReplaced
from channels.exceptions import ChannelsError

#: Kind of database -> seconds since 1970 by its own clock, whatever its zone.
CLOCKS: Final[dict[str, str]] = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "mysql": "UNIX_TIMESTAMP(CURRENT_TIMESTAMP(6))",
    "postgresql": "EXTRACT(EPOCH FROM CLOCK_TIMESTAMP())",
    "oracle": "(CAST(SYS_EXTRACT_UTC(SYSTIMESTAMP) AS DATE) - DATE '1970-01-01') * 86400",
}

Rows = list[tuple[Any, ...]]


class Statements:
    """The statements of `TableStore`, for one alias and prefix.

    Attributes:
        last_written: The last id after the latest write.
    """

    def __init__(self, alias: str, options: DatabaseOptions, prefix: str) -> None:
        self.alias = alias
        self.last_written = 0
        self._tables = Tables(options.tables, alias)
        self._options = options
        self._prefix = prefix

    @property
    def _counters(self) -> Any:
        return self._tables.counter.filter(id=ONE)

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

    @contextmanager
    def _batch(self, now: int) -> Iterator[Batch]:
        """A batch in a transaction of its own."""
        with self._writing() as counter:
            batch = Batch(self._tables, self._prefix, now, counter, self._options.max_messages)
            yield batch
            batch.insert()
            if batch.last != counter.last:
                self._counters.update(last=batch.last)
        self.last_written = batch.last

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
        self._tables.create(self._options.create_tables)

    def close(self) -> None:
        """Close this thread's connection."""
        connections[self.alias].close()

    # What a process does.

    def register(self, node: int) -> Rows:
        with self._writing() as counter:
            ((now, shift),) = self.clock()
            row, _ = self._tables.node.get_or_create(
                hash=node, defaults={"epoch": 0, "seen": now, "batch": 0, "journal": b""}
            )
            fence = row.epoch + 1
            self._tables.node.filter(hash=node).update(epoch=fence, seen=now)
        results = msgpack.unpackb(bytes(row.journal)) if row.journal else ([], [])
        return [(fence, row.batch, *results, counter.incarnation, counter.last, now, shift)]

    def leave(self, node: int, fence: int) -> Rows:
        self._tables.node.filter(hash=node, epoch=fence).delete()
        return []

    def clock(self) -> Rows:
        clock = RawSQL(CLOCKS[connections[self.alias].vendor], (), FloatField())
        found = self._counters.values_list(clock, "shift")
        return [(int(seconds * 1000) + shift, shift) for seconds, shift in found]

    def set_shift(self, after: int, before: int) -> Rows:
        self._counters.filter(shift=before).update(shift=after)
        return []

    def write(
        self, node: int, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], list[LeasedRow]]:
        if calls and all(call.kind == "l" for call in calls):
            # Most looks at queues find nothing: no need to take the counter's row.
            free = Q(hash__in={call.hash for call in calls}, due=0, expires__gt=now)
            leased = Q(lease__in={call.extra for call in calls})
            if not self._tables.queue.filter(free | leased).exists():
                return [(0, 0)] * len(calls), []
        with self._batch(now) as batch:
            results = [batch.carry_out(call) for call in calls]
            journal = msgpack.packb(
                [[first for first, _ in results], [last for _, last in results]]
            )
            found = self._tables.node.filter(hash=node, epoch=fence)
            if not found.update(batch=number, seen=now, journal=journal):
                raise ChannelsError("this connection has been replaced")
        return results, batch.leased

    def tick(self, now: int, most: int) -> Rows:
        due = self._tables.queue.filter(due__gt=0).order_by("due").values_list("due", flat=True)
        run_out = 0
        # Most looks find nothing: no need to take the counter's row.
        if (first := due.first()) is not None and first <= now:
            with self._batch(now) as batch:
                run_out = batch.release_due(most)
            first = due.first()
        return [(None if first is None else max(0, first - now), run_out)]

    def clean(self, now: int, node_life: int, most: int) -> Rows:
        tables = self._tables
        expired, unread = (
            list(
                rows.filter(expires__lte=now)
                .order_by("expires")
                .values_list("id", flat=True)[:most]
            )
            for rows in (tables.message, tables.queue.filter(due=0))
        )
        if expired:
            with self._writing() as counter:
                tables.message.filter(id__in=expired).delete()
                self._counters.update(horizon=max(counter.horizon, *expired))
        tables.queue.filter(id__in=unread, due=0).delete()
        tables.member.filter(expires__lte=now).delete()
        tables.node.filter(seen__lte=now - node_life).delete()
        return [(max(len(expired), len(unread)),)]

    # Reading.

    def last(self) -> int:
        """The last id; all up to it can be seen."""
        return int(self._counter().last)

    def page(self, hashes: Collection[int], cursor: int, most: int) -> Rows:
        counter, named = self._counter(), set(hashes)
        entries = self._tables.message.filter(id__gt=cursor, id__lte=counter.last).order_by("id")
        found = list(entries.values_list("id", "hash")[:most])
        mine = [number for number, hashed in found if hashed in named]
        payloads = dict(self._tables.message.filter(id__in=mine).values_list("id", "payload"))
        log = counter.incarnation, counter.horizon, counter.last
        return [
            (*log, number, hashed, bytes(payloads[number]) if number in payloads else None)
            for number, hashed in found
        ] or [(*log, None, None, None)]


#: Statement of `TableStore.ask` -> what carries it out.
STATEMENTS: Final[dict[str, Callable[..., Rows]]] = {
    "register": Statements.register,
    "leave": Statements.leave,
    "clock": Statements.clock,
    "set_shift": Statements.set_shift,
    "tick": Statements.tick,
    "clean": Statements.clean,
}


@cache
def _folder(process: int) -> tempfile.TemporaryDirectory[str]:  # noqa: ARG001 - a child has its own
    """Where this process keeps tables in place of databases in memory; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="channels-")
