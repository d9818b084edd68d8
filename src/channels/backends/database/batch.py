"""Carries out the calls of a batch on the tables, as `channels.backends.postgres.write` does."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from channels.backends.database.tables import Tables
from channels.backends.postgres.calls import BATCH, Call, Numbers
from channels.layers.envelope import attempted


class Batch:
    """One batch under way, in a transaction that holds the counter's row.

    Attributes:
        leased: Payloads by the token of their lease.
        last: The log's last id.

    Args:
        now: Milliseconds by the tables' clock.
    """

    def __init__(
        self, tables: Tables, alias: str, prefix: str, now: int, counter: Any, limit: int
    ) -> None:
        self.leased: dict[int, bytes] = {}
        self.last: int = counter.last
        self.now = now
        self._tables = tables
        self._alias = alias
        self._prefix = prefix
        self._counter = counter
        self._limit = limit
        self._messages: list[Any] = []

    def _rows(self, model: Any) -> Any:
        return model.objects.using(self._alias)

    @cached_property
    def _unread(self) -> Any:
        return self._rows(self._tables.queue)

    @cached_property
    def _held(self) -> Any:
        return self._rows(self._tables.held)

    @cached_property
    def _room(self) -> int:
        """How many messages the log may still take."""
        # An upper bound of what is there: places in queues are numbers of the counter, too.
        most: int = self._counter.last - self._counter.horizon
        if self._limit - most < BATCH:
            most = self._rows(self._tables.message).count()
        return self._limit - most

    @cached_property
    def _delayed(self) -> int:
        """How many were delayed before this batch."""
        count: int = self._held.filter(prefix=self._prefix, place=None).count()
        return count

    def carry_out(self, call: Call) -> Numbers:
        """What comes of one call."""
        return _CARRY_OUT[call.kind](self, call)

    def insert(self) -> None:
        """Write the messages that were gathered."""
        if self._messages:
            self._rows(self._tables.message).bulk_create(self._messages, batch_size=100)

    # Groups and processes.

    def publish(self, call: Call) -> Numbers:
        full = members = 0
        found = self._rows(self._tables.member).filter(hash=call.hash, expires__gt=self.now)
        for member in found:
            members += 1
            full += not self._append(member.queue, member.capacity, call)
        return full if self._log(call) else -1, members

    def push_node(self, call: Call) -> Numbers:
        if not self._rows(self._tables.node).filter(name=call.name).exists():
            return -2, 0
        return 0 if self._log(call) else -1, 0

    def _log(self, call: Call) -> bool:
        if len(self._messages) >= self._room:
            return False
        self.last += 1
        self._messages.append(self._tables.message(id=self.last, **self._content(call)))
        return True

    def _content(self, call: Call) -> dict[str, Any]:
        return {
            "hash": call.hash,
            "prefix": self._prefix,
            "expires": call.deadline,
            "payload": call.payload,
        }

    def join(self, call: Call) -> Numbers:  # noqa: ARG002 - where the log ends says it all
        return self.last, 0

    def add(self, call: Call) -> Numbers:
        self._rows(self._tables.member).update_or_create(
            hash=call.hash,
            queue=call.extra,
            defaults={
                "prefix": self._prefix,
                "capacity": call.number,
                "expires": call.deadline,
            },
        )
        return 0, 0

    def discard(self, call: Call) -> Numbers:
        self._rows(self._tables.member).filter(hash=call.hash, queue=call.extra).delete()
        return 0, 0

    def flush(self, call: Call) -> Numbers:  # noqa: ARG002 - it is all of the prefix
        for model in (self._tables.queue, self._tables.held, self._tables.member):
            self._rows(model).filter(prefix=self._prefix).delete()
        return 0, 0

    # Queues.

    def push(self, call: Call) -> Numbers:
        return 0 if self._append(call.hash, call.number, call) else -1, 0

    def _append(self, queue: int, capacity: int, call: Call) -> bool:
        if self._unread.filter(hash=queue, expires__gt=self.now).count() >= capacity:
            return False
        self.last += 1
        self._unread.create(place=self.last, **{**self._content(call), "hash": queue})
        return True

    def push_later(self, call: Call) -> Numbers:
        if self._delayed >= call.number:
            return -1, 0
        self._delayed += 1
        self._held.create(due=call.extra, **self._content(call))
        return 0, 0

    def lease(self, call: Call) -> Numbers:
        # Asked again, because the answer was lost, it gives the same.
        mine = self._held.filter(token__gte=call.extra, token__lt=call.extra + call.number)
        held = list(mine) or self._take(call)
        self.leased.update((row.token, bytes(row.payload)) for row in held)
        return 0, 0

    def _take(self, call: Call) -> list[Any]:
        wanted = self._unread.filter(hash=call.hash, expires__gt=self.now).order_by("place")
        found = list(wanted[: call.number])
        self._unread.filter(id__in=[row.id for row in found]).delete()
        held = [
            self._tables.held(
                token=call.extra + index,
                hash=row.hash,
                place=row.place,
                prefix=row.prefix,
                due=self.now + call.deadline,
                expires=row.expires,
                payload=attempted(bytes(row.payload), 1),
            )
            for index, row in enumerate(found)
        ]
        self._held.bulk_create(held, batch_size=100)
        return held

    def acknowledge(self, call: Call) -> Numbers:
        return self._held.filter(token=call.extra).delete()[0], 0

    def extend(self, call: Call) -> Numbers:
        return self._held.filter(token=call.extra).update(due=self.now + call.number), 0

    def release(self, call: Call) -> Numbers:
        row = self._held.filter(token=call.extra).first()
        if row is None:
            return 0, 0
        if call.kind == "u":
            row.payload = attempted(bytes(row.payload), -1)
        if call.number <= 0:
            row.delete()
            self._put_back(row)
        else:
            row.token, row.due = None, self.now + call.number
            row.save()
        return 1, 0

    def release_due(self, most: int) -> int:
        """Put what is due into its queue; gives how many leases had run out."""
        found = list(self._held.filter(due__lte=self.now).order_by("due", "id")[:most])
        self._held.filter(id__in=[row.id for row in found]).delete()
        for row in found:
            # What has expired is left to readers and cleaners.
            self._put_back(row)
        return sum(row.token is not None for row in found)

    def _put_back(self, row: Any) -> None:
        """Into its queue: to its old place, or to the end if it was never in it."""
        # Readers that wait for it look when the log's end has moved.
        self.last += 1
        place = self.last if row.place is None else row.place
        self._unread.create(
            hash=row.hash, place=place, prefix=row.prefix, expires=row.expires, payload=row.payload
        )


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
    "f": Batch.flush,
}
