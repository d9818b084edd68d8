"""What the layer does in the database: plain functions that block, each on a connection of its
thread's.

Whoever writes takes the counter's row first and holds it to the commit.  Under it nothing else is
written, so that counts are exact and ids are in the order of commits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import DatabaseError, Error, connections, transaction
from django.db.models import F

from channels.backends.database.batch import Batch, Room, pack_journal, read_journal
from channels.backends.database.tables import ONE, Tables
from channels.backends.tables.calls import Call, Result
from channels.backends.tables.session import Registration
from channels.exceptions import ChannelsError

#: Rows of one page, and hashes in one query; Oracle takes no more than 1,000 values in a list.
PAGE: Final = 500
MOST_NAMED: Final = 200
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 500
#: Held messages that are put into their queues in one go.
MOST_DUE: Final = 100


#: (id, hash, payload).
LogRow = tuple[int, int, bytes]


class FencedOff(ChannelsError):
    """Another connection of the same process has taken this one's place."""


class Refused(ChannelsError):
    """The database does not carry out a batch, although it is there."""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


class Store:
    """The statements, for one alias and prefix."""

    def __init__(self, alias: str, tables: Tables, prefix: str, max_messages: int) -> None:
        self.alias = alias
        self.tables = tables
        self._prefix = prefix
        self._max_messages = max_messages

    def _rows(self, model: Any) -> Any:
        return model.objects.using(self.alias)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction that holds the counter's row; gives it."""
        with transaction.atomic(using=self.alias):
            counters = self._rows(self.tables.counter).filter(id=ONE)
            if connections[self.alias].features.has_select_for_update:
                counters = counters.select_for_update()
            else:
                # SQLite lets one write at a time: who writes first holds all.
                counters.update(last=F("last"))
            counter = counters.first()
            if counter is None:
                raise ChannelsError("The counter of the channel layer's tables has gone.")
            yield counter

    def open(self) -> None:
        """Prepare this thread's connection."""
        # With DEBUG Django keeps the last 9,000 statements of each connection, payloads and all.
        connections[self.alias].queries_log = deque(maxlen=0)

    def close(self) -> None:
        """Close this thread's connection."""
        connections[self.alias].close()

    def register(self, node: str) -> Registration:
        """Raise this process's fence, and read its journal."""
        nodes = self._rows(self.tables.node)
        with self._writing() as counter:
            row = nodes.filter(name=node).first()
            if row is None:
                row = nodes.create(name=node, epoch=0, seen=0, batch=0, journal=b"")
            nodes.filter(name=node).update(epoch=row.epoch + 1, seen=now_ms())
        journal = bytes(row.journal)
        return Registration(
            row.epoch + 1,
            row.batch,
            read_journal(journal) if journal else {},
            counter.incarnation,
            counter.horizon,
            counter.last,
        )

    def leave(self, node: str, fence: int) -> None:
        self._rows(self.tables.node).filter(name=node, epoch=fence).delete()

    def touch(self, node: str, fence: int) -> None:
        """This process lives.

        Raises:
            FencedOff: If another connection of it has registered since.
        """
        if not self._rows(self.tables.node).filter(name=node, epoch=fence).update(seen=now_ms()):
            raise FencedOff("this connection has been replaced")

    def write(
        self, node: str, fence: int, number: int, calls: Sequence[Call]
    ) -> tuple[dict[int, Result], int]:
        """Carry out a batch; the results, and the log's last id.

        Raises:
            FencedOff: If another connection of this process has registered since.
            Refused: If the database will not, on a connection that works.
            DatabaseError: If the connection broke.
        """
        database = connections[self.alias]
        before = database.connection
        try:
            return self._write(node, fence, number, calls)
        except DatabaseError as error:
            # Where it cannot roll back, Django makes a new connection.
            if database.connection is before and self._answers():
                raise Refused(*error.args) from error
            raise

    def _write(
        self, node: str, fence: int, number: int, calls: Sequence[Call]
    ) -> tuple[dict[int, Result], int]:
        with self._writing() as counter:
            batch = self._batch(counter)
            for index, call in enumerate(calls):
                batch.results[index] = batch.carry_out(call)
            batch.insert()
            self._note_last(counter, batch)
            found = self._rows(self.tables.node).filter(name=node, epoch=fence)
            if not found.update(batch=number, seen=batch.now, journal=pack_journal(batch.results)):
                raise FencedOff("this connection has been replaced")
        return batch.results, batch.last

    def _answers(self) -> bool:
        try:
            self.last()
        except Error:
            return False
        return True

    def has_any(self, hashes: Collection[int]) -> bool:
        """True if one of these queues holds something."""
        rows = self._rows(self.tables.queue)
        return bool(rows.filter(hash__in=list(hashes), expires__gt=now_ms()).exists())

    def tick(self) -> tuple[float | None, int, int]:
        """Put what is due into its queue.

        Returns:
            Seconds until the next is due, how many leases had run out, and the log's last id or 0.
        """
        held = self._rows(self.tables.held)

        def wait() -> float | None:
            due = held.order_by("due").values_list("due", flat=True).first()
            return None if due is None else max(0, due - now_ms()) / 1000

        # Most looks find nothing: no need to take the counter's row.
        left = wait()
        if left is None or left > 0:
            return left, 0, 0
        with self._writing() as counter:
            batch = self._batch(counter)
            run_out = batch.release_due(MOST_DUE)
            self._note_last(counter, batch)
        return wait(), run_out, batch.last

    def last(self) -> int:
        """The log's last id; all up to it can be seen."""
        found = self._rows(self.tables.counter).filter(id=ONE).values_list("last", flat=True)
        return int(found.get())

    def read(self, cursor: int, last: int, wanted: Collection[int]) -> tuple[int, list[LogRow]]:
        """What is wanted of the log after `cursor`, and up to where this is complete.

        Args:
            last: Read no further.
        """
        rows = self._rows(self.tables.message).filter(id__gt=cursor, id__lte=last).order_by("id")
        if len(wanted) <= MOST_NAMED:
            rows = rows.filter(hash__in=list(wanted))
        found = list(rows.values_list("id", "hash")[:PAGE])
        if len(found) == PAGE:
            last = found[-1][0]
        ids = [number for number, hashed in found if hashed in wanted]
        payloads: dict[int, Any] = {}
        for start in range(0, len(ids), MOST_NAMED):
            part = self._rows(self.tables.message).filter(id__in=ids[start : start + MOST_NAMED])
            payloads.update(part.values_list("id", "payload"))
        hashes = dict(found)
        return last, [
            (number, hashes[number], bytes(payloads[number]))
            for number in ids
            if number in payloads
        ]

    def clean(self, node_life: float) -> int:
        """Delete some of what has expired; how much that was."""
        now = now_ms()
        count = 0
        messages, queues = self._rows(self.tables.message), self._rows(self.tables.queue)
        old = list(
            messages.filter(expires__lte=now)
            .order_by("expires")
            .values_list("id", flat=True)[:CLEAN_BATCH]
        )
        if old:
            with self._writing() as counter:
                messages.filter(id__in=old).delete()
                self._rows(self.tables.counter).filter(id=ONE).update(
                    horizon=max(counter.horizon, *old)
                )
            count = len(old)
        old = list(
            queues.filter(expires__lte=now)
            .order_by("expires")
            .values_list("id", flat=True)[:CLEAN_BATCH]
        )
        if old:
            count += int(queues.filter(id__in=old).delete()[0])
        self._rows(self.tables.member).filter(expires__lte=now).delete()
        self._rows(self.tables.node).filter(seen__lte=now - int(node_life * 1000)).delete()
        return count

    def _batch(self, counter: Any) -> Batch:
        # More than are there: places in queues are numbers of the counter, too.
        most = counter.last - counter.horizon
        return Batch(
            self.tables,
            self.alias,
            self._prefix,
            now_ms(),
            counter.last,
            Room(self._rows(self.tables.message), self._max_messages, most),
        )

    def _note_last(self, counter: Any, batch: Batch) -> None:
        if batch.last != counter.last:
            self._rows(self.tables.counter).filter(id=ONE).update(last=batch.last)
