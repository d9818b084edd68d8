"""Reading the log: on from a cursor, in the order of ids, with what was committed late."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from channels.backends.postgres.connection import Connection, Row
from channels.backends.postgres.holes import Holes
from channels.backends.postgres.options import PostgresOptions
from channels.backends.postgres.schema import Schema
from channels.backends.tables.transport import TableTransport
from channels.layers.contract import TransportEvents

#: Rows of one page; most of them are other processes' and come without their payload.
PAGE: Final = 500
#: Groups that are named in the query for a page; above it only those of which a wake-up told.
MOST_NAMED: Final = 200
#: A payload up to this size comes with its page; larger ones, few at a time, after it.
SMALL: Final = 64 * 1024
#: Bytes of payload that are fetched at a time.
FETCH_BYTES: Final = 8 * 1024 * 1024
#: Rows below the log's end that are looked at for holes by a process that starts.
LOOK_BACK: Final = 1000


class Reader:
    """One process's place in the log; it outlives its connections."""

    def __init__(
        self,
        transport: TableTransport,
        schema: Schema,
        options: PostgresOptions,
        events: TransportEvents,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.cursor = 0
        self.holes = Holes()
        self._options = options
        self._channel = schema.channel
        self._transport = transport
        self._wanted = transport.wanted
        self._events = events
        #: Hashes of which a wake-up told since the last page; None: any.
        self._named: set[int] | None = set()
        table = schema.table("message")
        columns = (
            f"SELECT id, hash, octet_length(payload), CASE WHEN hash = ANY (%s::bigint[]) AND "
            f"octet_length(payload) <= {SMALL} THEN payload END FROM {table} "
        )
        self._page = columns + f"WHERE id > %s ORDER BY id LIMIT {PAGE}"
        self._late = columns + "WHERE id = ANY (%s::bigint[]) ORDER BY id"
        self._payloads = f"SELECT id, payload FROM {table} WHERE id = ANY (%s::bigint[])"
        self._recent = f"SELECT id FROM {table} WHERE id > %s AND id <= %s ORDER BY id"

    def begin(self, cursor: int) -> None:
        """Read on from here."""
        self.cursor = cursor
        self.holes.clear()

    async def look_back(self, connection: Connection) -> None:
        """Note what may still be committed below the cursor."""
        first = max(0, self.cursor - LOOK_BACK)
        rows = await connection.fetch(self._recent, (first, self.cursor))
        ids = [row[0] for row in rows] + [self.cursor + 1]
        await self._note(connection, self.holes.missing(first, ids))

    async def run(self, connection: Connection) -> None:
        """Read until the connection breaks.

        Raises:
            psycopg.Error: When it does.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self.catch_up(connection)
            self._transport.woken(None)
            poll_at = loop.time() + self._options.poll_interval
            while (left := poll_at - loop.time()) > 0:
                if self._is_concerned(await connection.wait_notified(left)):
                    await self.catch_up(connection)

    def _is_concerned(self, payloads: Iterable[str]) -> bool:
        """Take in wake-ups; True if one is about something that is read here."""
        hashes: set[int] | None = set()
        for payload in payloads:
            self.counters["wakeups"] += 1
            if hashes is None or payload == "*":
                hashes = None
            else:
                hashes.update(int(word) for word in payload.split(","))
        if hashes is None:
            self._named = None
        elif self._named is not None:
            self._named |= hashes & self._wanted.keys()
        self._transport.woken(hashes)
        return self._named is None or bool(self._named)

    async def catch_up(self, connection: Connection) -> None:
        """Read what has come, page by page."""
        while True:
            named, self._named = self._named, set()
            rows = await connection.fetch(self._page, (self._names(named), self.cursor))
            if rows:
                ids = [row[0] for row in rows]
                if missing := self.holes.missing(self.cursor, ids):
                    await self._note(connection, missing)
                frames = await self._frames(connection, rows, is_late=False)
                # Together: what follows the cursor has not been handed out.
                self.cursor = ids[-1]
                self._hand_out(frames)
            if len(rows) < PAGE:
                break
        if self.holes:
            await self._ask_for_holes(connection)

    def _names(self, named: set[int] | None) -> list[int]:
        if len(self._wanted) <= MOST_NAMED:
            return list(self._wanted)
        return list(named or ())[:MOST_NAMED]

    async def _frames(
        self, connection: Connection, rows: Sequence[Row], is_late: bool
    ) -> list[bytes]:
        """The payloads that are wanted now, in the order of the rows."""
        found: dict[int, bytes | None] = {}
        sizes: dict[int, int] = {}
        for number, hashed, size, payload in rows:
            floor = self._wanted.get(hashed)
            # What was committed late had no number by which to tell it from what went before.
            if floor is None or (number <= floor and not is_late):
                continue
            found[number] = payload
            if payload is None:
                sizes[number] = size
        while sizes:
            batch: list[int] = []
            total = 0
            while sizes and (not batch or total + min(sizes.values()) <= FETCH_BYTES):
                number, size = sizes.popitem()
                batch.append(number)
                total += size
            found.update(dict(await connection.fetch(self._payloads, (batch,))))
        return [payload for payload in found.values() if payload is not None]

    def _hand_out(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self._events.on_frame(frame)
        self.counters["read"] += len(frames)

    async def _note(self, connection: Connection, missing: Sequence[range]) -> None:
        rows = await connection.fetch("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        now = asyncio.get_running_loop().time()
        if not self.holes.note(missing, now, int(rows[0][0])):
            self._events.on_gap(None)

    async def _ask_for_holes(self, connection: Connection) -> None:
        # Asked before the rows: what had ended by then can be seen in them.
        oldest = await connection.fetch("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        rows = await connection.fetch(self._late, (self._names(None), self.holes.ids()))
        frames = await self._frames(connection, rows, is_late=True)
        self.holes.fill(row[0] for row in rows)
        self.counters["read_late"] += len(rows)
        self._hand_out(frames)
        self.holes.settle(asyncio.get_running_loop().time(), int(oldest[0][0]))
