"""Carries out a batch on the tables, as `channels.backends.postgres.functions` does."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from django.db.models import Count, F, Min

from channels.backends.database.tables import Tables
from channels.backends.postgres.calls import BATCH, Call, LeasedRow, Numbers


class Batch:
    """One batch under way, in a transaction that holds the counter's row.

    Attributes:
        leased: What its calls have leased.
        last: The last id.

    Args:
        now: Milliseconds by the tables' clock.
        most: Size of the log at which sends are refused.
    """

    def __init__(self, tables: Tables, prefix: str, now: int, counter: Any, most: int) -> None:
        self.leased: list[LeasedRow] = []
        self.last: int = counter.last
        self.now = now
        self._tables = tables
        self._queue = tables.queue
        self._prefix = prefix
        self._counter = counter
        self._most = most
        self._messages: list[Any] = []

    @cached_property
    def _room(self) -> int:
        """How many messages the log may still take."""
        # An upper bound of what is there: messages in queues have numbers of the counter, too.
        there: int = self._counter.last - self._counter.horizon
        if self._most - there < BATCH:
            there = self._tables.message.count()
        return self._most - there

    @cached_property
    def _delayed(self) -> int:
        """How many were delayed before this batch."""
        count: int = self._queue.filter(prefix=self._prefix, lease=0, due__gt=0).count()
        return count

    def carry_out(self, call: Call) -> Numbers:
        """What comes of one call."""
        return _CARRY_OUT[call.kind](self, call)

    def insert(self) -> None:
        """Write the messages that were gathered."""
        if self._messages:
            self._tables.message.bulk_create(self._messages, batch_size=100)

    # Groups and processes.

    def publish(self, call: Call) -> Numbers:
        full = members = 0
        for member in self._tables.member.filter(hash=call.hash, expires__gt=self.now):
            members += 1
            full += not self._append(member.queue, member.capacity, call)
        return full if self._log(call) else -1, members

    def push_node(self, call: Call) -> Numbers:
        if not self._tables.node.filter(hash=call.hash).exists():
            return -2, 0
        return 0 if self._log(call) else -1, 0

    def _log(self, call: Call) -> bool:
        if len(self._messages) >= self._room:
            return False
        self.last += 1
        message = {"hash": call.hash, "expires": call.deadline, "payload": call.payload}
        self._messages.append(self._tables.message.model(id=self.last, **message))
        return True

    def join(self, call: Call) -> Numbers:  # noqa: ARG002 - where the log ends says it all
        return self.last, 0

    def add(self, call: Call) -> Numbers:
        others = {"prefix": self._prefix, "capacity": call.number, "expires": call.deadline}
        self._tables.member.update_or_create(hash=call.hash, queue=call.extra, defaults=others)
        return 0, 0

    def discard(self, call: Call) -> Numbers:
        self._tables.member.filter(hash=call.hash, queue=call.extra).delete()
        return 0, 0

    def flush(self, call: Call) -> Numbers:  # noqa: ARG002 - it is all of the prefix
        for rows in (self._queue, self._tables.member):
            rows.filter(prefix=self._prefix).delete()
        return 0, 0

    # Queues.

    def push(self, call: Call) -> Numbers:
        return 0 if self._append(call.hash, call.number, call) else -1, 0

    def _append(self, queue: int, capacity: int, call: Call) -> bool:
        if self._queue.filter(hash=queue, due=0, expires__gt=self.now).count() >= capacity:
            return False
        self._create(queue, call)
        return True

    def _create(self, queue: int, call: Call, due: int = 0) -> None:
        self.last += 1
        self._queue.create(
            id=self.last,
            hash=queue,
            prefix=self._prefix,
            due=due,
            expires=call.deadline,
            payload=call.payload,
        )

    def push_later(self, call: Call) -> Numbers:
        if self._delayed >= call.number:
            return -1, 0
        self._delayed += 1
        self._create(call.hash, call, due=call.extra)
        return 0, 0

    def lease(self, call: Call) -> Numbers:
        mine = self._queue.filter(lease=call.extra)
        # Asked again, because the answer was lost, it gives the same.
        if not mine.exists():
            free = self._queue.filter(hash=call.hash, due=0, expires__gt=self.now).order_by("id")
            self._queue.filter(
                id__in=list(free.values_list("id", flat=True)[: call.number])
            ).update(lease=call.extra, due=self.now + call.deadline, attempts=F("attempts") + 1)
        self.leased += [
            (row.lease, row.id, row.attempts, bytes(row.payload)) for row in mine.order_by("id")
        ]
        return 0, 0

    def backlog(self, call: Call) -> Numbers:
        free = self._queue.filter(hash=call.hash, due=0, expires__gt=self.now)
        found = free.aggregate(waiting=Count("id"), first=Min("expires"))
        return found["waiting"], found["first"] or 0

    def _on_lease(self, call: Call) -> Any:
        return self._queue.filter(id=call.hash, lease=call.extra)

    def acknowledge(self, call: Call) -> Numbers:
        return self._on_lease(call).delete()[0], 0

    def extend(self, call: Call) -> Numbers:
        return self._on_lease(call).update(due=self.now + call.number), 0

    def release(self, call: Call) -> Numbers:
        if call.number <= 0:
            # Readers that wait for it look when the last id has changed.
            self.last += 1
        return self._on_lease(call).update(
            lease=-1,
            due=self.now + call.number if call.number > 0 else 0,
            attempts=F("attempts") - int(call.kind == "u"),
        ), 0

    def release_due(self, most: int) -> int:
        """Let what is due be leased again; gives how many leases had run out."""
        found = list(
            self._queue.filter(due__gt=0, due__lte=self.now)
            .order_by("due", "id")
            .values_list("id", "lease")[:most]
        )
        for number, lease in found:
            self.last += 1
            # What was never in its queue comes to the end.
            place = self.last if lease == 0 else number
            self._queue.filter(id=number).update(id=place, due=0, lease=-1)
        return sum(lease > 0 for _, lease in found)


_CARRY_OUT: Final = {
    "g": Batch.publish,
    "n": Batch.push_node,
    "q": Batch.push,
    "j": Batch.join,
    "a": Batch.add,
    "d": Batch.discard,
    "w": Batch.push_later,
    "l": Batch.lease,
    "k": Batch.acknowledge,
    "e": Batch.extend,
    "r": Batch.release,
    "u": Batch.release,
    "b": Batch.backlog,
    "f": Batch.flush,
}
