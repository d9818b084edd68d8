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
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from django.db import connections, transaction
from django.db.models import F

from channels.database.tables import ONE, Tables
from channels.exceptions import ChannelsError
from channels.layers.tables.calls import Call, Result

#: Rows of one page, and hashes in one query; Oracle takes no more than 1,000 values in a list.
PAGE: Final = 500
MOST_NAMED: Final = 200
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 500


#: (id, hash, payload).
LogRow = tuple[int, int, bytes]


class FencedOff(ChannelsError):
    """Another connection of the same process has taken this one's place."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a process finds when it connects."""

    fence: int
    batch: int
    results: dict[int, Result]
    incarnation: str
    horizon: int
    last: int


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
            if not counters.update(last=F("last")):
                raise ChannelsError("The counter of the channel layer's tables has gone.")
            yield counters.get()

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
            _unpack(journal) if journal else {},
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
        """
        with self._writing() as counter:
            batch = _Batch(self, counter, now_ms())
            for index, call in enumerate(calls):
                batch.results[index] = batch.carry_out(call)
            batch.insert()
            if batch.last != counter.last:
                self._rows(self.tables.counter).filter(id=ONE).update(last=batch.last)
            found = self._rows(self.tables.node).filter(name=node, epoch=fence)
            if not found.update(batch=number, seen=batch.now, journal=_pack(batch.results)):
                raise FencedOff("this connection has been replaced")
        return batch.results, batch.last

    def has_any(self, hashes: Collection[int]) -> bool:
        """True if one of these queues holds something."""
        rows = self._rows(self.tables.queue)
        return bool(rows.filter(hash__in=list(hashes), expires__gt=now_ms()).exists())

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

    @property
    def prefix(self) -> str:
        return self._prefix

    def free(self, counter: Any) -> int:
        """How many messages the log may still take."""
        return int(self._max_messages - (counter.last - counter.horizon))


class _Batch:
    """One batch under way."""

    def __init__(self, store: Store, counter: Any, now: int) -> None:
        self.results: dict[int, Result] = {}
        self.last: int = counter.last
        self.now = now
        self._store = store
        self._free = store.free(counter)
        self._messages: list[Any] = []
        self._tables = store.tables

    def _rows(self, model: Any) -> Any:
        return model.objects.using(self._store.alias)

    def carry_out(self, call: Call) -> Result:
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
                prefix=self._store.prefix,
                capacity=call.number,
                expires=call.deadline,
            )
        return (0, 0, [])

    def discard(self, call: Call) -> Result:
        self._rows(self._tables.member).filter(hash=call.hash, queue=call.extra).delete()
        return (0, 0, [])

    def pull(self, call: Call) -> Result:
        rows = self._rows(self._tables.queue).filter(hash=call.hash, expires__gt=self.now)
        found = list(rows.order_by("place").values_list("id", "place", "payload")[: call.number])
        if found:
            self._rows(self._tables.queue).filter(id__in=[row[0] for row in found]).delete()
        return (len(found), 0, [(place, bytes(payload)) for _, place, payload in found])

    def give_back(self, call: Call) -> Result:
        place = call.number
        if not place:
            rows = self._rows(self._tables.queue).filter(hash=call.hash).order_by("place")
            first = rows.values_list("place", flat=True).first()
            place = (0 if first is None else first) - 1
        # Readers that wait for it look when the log's end has moved.
        self.last += 1
        self._fill(call.hash, place, call)
        return (0, 0, [])

    def flush(self, call: Call) -> Result:  # noqa: ARG002 - it is all of the prefix
        for model in (self._tables.queue, self._tables.member):
            self._rows(model).filter(prefix=self._store.prefix).delete()
        return (0, 0, [])

    def _log(self, call: Call) -> bool:
        if self._free <= 0:
            return False
        self._free -= 1
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
        self._fill(queue, self.last, call)
        return True

    def _fill(self, queue: int, place: int, call: Call) -> None:
        self._rows(self._tables.queue).create(
            hash=queue,
            place=place,
            prefix=self._store.prefix,
            expires=call.deadline,
            payload=call.payload,
        )


_CARRY_OUT: Final = {
    "g": _Batch.publish,
    "n": _Batch.push_node,
    "q": _Batch.push,
    "j": _Batch.join,
    "a": _Batch.add,
    "d": _Batch.discard,
    "p": _Batch.pull,
    "b": _Batch.give_back,
    "f": _Batch.flush,
}


def _pack(results: dict[int, Result]) -> bytes:
    packed: bytes = msgpack.packb(list(results.items()))
    return packed


def _unpack(journal: bytes) -> dict[int, Result]:
    return {
        index: (first, second, [(place, payload) for place, payload in pulled])
        for index, (first, second, pulled) in msgpack.unpackb(journal)
    }
