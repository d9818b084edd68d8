"""Carries out the calls of a batch on the tables."""

from __future__ import annotations

from typing import Any, Final

import msgpack

from channels.backends.database.tables import Tables
from channels.backends.tables.calls import Call, Result
from channels.layers.envelope import attempted


class Room:
    """How many messages the log may still take.

    Args:
        rows: Its messages.
        at_most: How many there are, at most.
    """

    def __init__(self, rows: Any, limit: int, at_most: int) -> None:
        self._rows = rows
        self._limit = limit
        self._free = limit - at_most
        self._taken = 0
        self._is_counted = False

    def take(self) -> bool:
        """Take the room of one; False if there is none."""
        if self._free <= 0 and not self._is_counted:
            self._is_counted = True
            self._free = self._limit - self._rows.count() - self._taken
        if self._free <= 0:
            return False
        self._free -= 1
        self._taken += 1
        return True


class Batch:
    """One batch under way, in a transaction that holds the counter's row.

    Args:
        now: Milliseconds since 1970.
        last: The log's last id.
    """

    def __init__(
        self, tables: Tables, alias: str, prefix: str, now: int, last: int, room: Room
    ) -> None:
        self.results: dict[int, Result] = {}
        self.last = last
        self.now = now
        self._tables = tables
        self._alias = alias
        self._prefix = prefix
        self._room = room
        #: How many are delayed, once that has been counted.
        self._delayed: int | None = None
        self._messages: list[Any] = []

    def _rows(self, model: Any) -> Any:
        return model.objects.using(self._alias)

    def carry_out(self, call: Call) -> Result:
        """What comes of one call."""
        return _CARRY_OUT[call.kind](self, call)

    def insert(self) -> None:
        """Write the messages that were gathered."""
        if self._messages:
            self._rows(self._tables.message).bulk_create(self._messages, batch_size=100)

    def publish(self, call: Call) -> Result:
        full = members = 0
        found = self._rows(self._tables.member).filter(hash=call.hash, expires__gt=self.now)
        for member in found:
            members += 1
            full += not self._append(member.queue, member.capacity, call)
        return (full if self._log(call) else -1, members, [])

    def push_node(self, call: Call) -> Result:
        if not self._rows(self._tables.node).filter(name=call.name).exists():
            return (-2, 0, [])
        return (0 if self._log(call) else -1, 0, [])

    def push(self, call: Call) -> Result:
        return (0 if self._append(call.hash, call.number, call) else -1, 0, [])

    def join(self, call: Call) -> Result:  # noqa: ARG002 - where the log ends says it all
        return (self.last, 0, [])

    def add(self, call: Call) -> Result:
        found = self._rows(self._tables.member).filter(hash=call.hash, queue=call.extra)
        if not found.update(expires=call.deadline, capacity=call.number):
            self._rows(self._tables.member).create(
                hash=call.hash,
                queue=call.extra,
                prefix=self._prefix,
                capacity=call.number,
                expires=call.deadline,
            )
        return (0, 0, [])

    def discard(self, call: Call) -> Result:
        self._rows(self._tables.member).filter(hash=call.hash, queue=call.extra).delete()
        return (0, 0, [])

    def pull(self, call: Call) -> Result:
        found = self._take(call)
        return (len(found), 0, [(row.place, bytes(row.payload)) for row in found])

    def give_back(self, call: Call) -> Result:
        self._put_back(call.hash, call.number or None, self._prefix, call.deadline, call.payload)
        return (0, 0, [])

    # What is held back from its queue.

    def push_later(self, call: Call) -> Result:
        rows = self._rows(self._tables.held)
        if self._delayed is None:
            self._delayed = rows.filter(prefix=self._prefix, place=None).count()
        if self._delayed >= call.number:
            return (-1, 0, [])
        self._delayed += 1
        rows.create(
            hash=call.hash,
            prefix=self._prefix,
            due=call.extra,
            expires=call.deadline,
            payload=call.payload,
        )
        return (0, 0, [])

    def lease(self, call: Call) -> Result:
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
            for index, row in enumerate(self._take(call))
        ]
        if held:
            self._rows(self._tables.held).bulk_create(held, batch_size=100)
        return (len(held), 0, [(row.token, row.payload) for row in held])

    def acknowledge(self, call: Call) -> Result:
        count, _ = self._on_lease(call).delete()
        return (count, 0, [])

    def extend(self, call: Call) -> Result:
        return (self._on_lease(call).update(due=self.now + call.number), 0, [])

    def release(self, call: Call) -> Result:
        row = self._on_lease(call).first()
        if row is None:
            return (0, 0, [])
        payload = bytes(row.payload)
        if call.kind == "u":
            payload = attempted(payload, -1)
        if call.number <= 0:
            row.delete()
            self._put_back(row.hash, row.place, row.prefix, row.expires, payload)
        else:
            due = self.now + call.number
            self._on_lease(call).update(token=None, due=due, payload=payload)
        return (1, 0, [])

    def release_due(self, most: int) -> int:
        """Put what is due into its queue; gives how many leases had run out."""
        rows = self._rows(self._tables.held)
        found = list(rows.filter(due__lte=self.now).order_by("due", "id")[:most])
        rows.filter(id__in=[row.id for row in found]).delete()
        for row in found:
            if row.expires <= self.now:
                continue
            if row.place is None:
                self.last += 1
                self._fill(row.hash, self.last, row.prefix, row.expires, row.payload)
            else:
                self._put_back(row.hash, row.place, row.prefix, row.expires, row.payload)
        return sum(row.token is not None for row in found)

    def _on_lease(self, call: Call) -> Any:
        return self._rows(self._tables.held).filter(token=call.extra)

    def _take(self, call: Call) -> list[Any]:
        """Take the first of a queue out of it."""
        rows = self._rows(self._tables.queue)
        wanted = rows.filter(hash=call.hash, expires__gt=self.now).order_by("place")
        found = list(wanted[: call.number])
        if found:
            rows.filter(id__in=[row.id for row in found]).delete()
        return found

    def _put_back(
        self, queue: int, place: int | None, prefix: str, expires: int, payload: bytes
    ) -> None:
        """To its old place, or to the head if it has none."""
        if place is None:
            rows = self._rows(self._tables.queue).filter(hash=queue).order_by("place")
            first = rows.values_list("place", flat=True).first()
            place = (0 if first is None else first) - 1
        # Readers that wait for it look when the log's end has moved.
        self.last += 1
        self._fill(queue, place, prefix, expires, payload)

    def flush(self, call: Call) -> Result:  # noqa: ARG002 - it is all of the prefix
        for model in (self._tables.queue, self._tables.held, self._tables.member):
            self._rows(model).filter(prefix=self._prefix).delete()
        return (0, 0, [])

    def _log(self, call: Call) -> bool:
        if not self._room.take():
            return False
        self.last += 1
        self._messages.append(
            self._tables.message(
                id=self.last, hash=call.hash, expires=call.deadline, payload=call.payload
            )
        )
        return True

    def _append(self, queue: int, capacity: int, call: Call) -> bool:
        rows = self._rows(self._tables.queue).filter(hash=queue, expires__gt=self.now)
        if rows.count() >= capacity:
            return False
        self.last += 1
        self._fill(queue, self.last, self._prefix, call.deadline, call.payload)
        return True

    def _fill(self, queue: int, place: int, prefix: str, expires: int, payload: bytes) -> None:
        self._rows(self._tables.queue).create(
            hash=queue, place=place, prefix=prefix, expires=expires, payload=payload
        )


_CARRY_OUT: Final = {
    "g": Batch.publish,
    "n": Batch.push_node,
    "q": Batch.push,
    "j": Batch.join,
    "a": Batch.add,
    "d": Batch.discard,
    "p": Batch.pull,
    "b": Batch.give_back,
    "w": Batch.push_later,
    "l": Batch.lease,
    "k": Batch.acknowledge,
    "e": Batch.extend,
    "r": Batch.release,
    "u": Batch.release,
    "f": Batch.flush,
}


def pack_journal(results: dict[int, Result]) -> bytes:
    """What came of a batch, for who asks later."""
    packed: bytes = msgpack.packb(list(results.items()))
    return packed


def read_journal(journal: bytes) -> dict[int, Result]:
    """The reverse."""
    return {
        index: (first, second, [(place, payload) for place, payload in pulled])
        for index, (first, second, pulled) in msgpack.unpackb(journal)
    }
