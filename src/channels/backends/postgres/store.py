"""The statements of a session on PostgreSQL; see `TableStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import psycopg
from psycopg import OperationalError

from channels.backends.postgres.address import Places
from channels.backends.postgres.calls import Call, Numbers
from channels.backends.postgres.connection import PostgresConnection, Row
from channels.backends.postgres.options import PostgresOptions
from channels.backends.postgres.schema import CLOCK, Schema
from channels.backends.postgres.table_store import Page, Refused, Registration, TablesReplaced
from channels.exceptions import ChannelsError

#: Rows of one page; most of them are other processes' and come without their payload.
PAGE: Final = 500
#: Groups that are named in the query for a page; above it only those of which a wake-up told.
MOST_NAMED: Final = 200
#: A payload up to this size comes with its page; larger ones, few at a time, after it.
SMALL: Final = 64 * 1024
#: Bytes of payload that are fetched at a time.
FETCH_BYTES: Final = 8 * 1024 * 1024
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 1000
#: Held messages that are put into their queues in one go.
MOST_DUE: Final = 100
#: A replaced connection, and tables or functions that are to be made again.
_CURABLE: Final = frozenset({"CH001", "42P01", "42883"})


class PostgresStore:
    """One connection writes, takes and cleans; one listens and reads."""

    name = "channel layer on PostgreSQL"
    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, places: Places, options: PostgresOptions, prefix: str) -> None:
        self.schema = Schema(options)
        self._places = places
        self._options = options
        self._prefix = prefix
        self._connections: list[PostgresConnection] = []
        self._poll_at = 0.0
        #: Hashes of which a wake-up told since the last page; None: any.
        self._named: set[int] | None = None
        table, function = self.schema.table, self.schema.function
        self._write = (
            f"SELECT * FROM {function('write')}(%s, %s, %s, %s, %s, %s, %s::text[], %s::text[],"
            " %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[])"
        )
        self._page = (
            "SELECT m.incarnation, m.horizon, s.last_value, s.is_called, "
            f"EXISTS (SELECT FROM {table('outbox')}), p.* "
            f"FROM {table('message_id_seq')} s, {table('meta')} m LEFT JOIN ("
            "SELECT id, hash, octet_length(payload), CASE WHEN hash = ANY (%s::bigint[]) AND "
            f"octet_length(payload) <= {SMALL} THEN payload END FROM {table('message')} "
            f"WHERE id > %s ORDER BY id LIMIT {PAGE}) p ON true ORDER BY p.id"
        )
        self._payloads = f"SELECT id, payload FROM {table('message')} WHERE id = ANY (%s::bigint[])"

    @property
    def _work(self) -> PostgresConnection:
        return self._connections[0]

    @property
    def _listener(self) -> PostgresConnection:
        return self._connections[1]

    # Connections.

    def check(self) -> None:
        self._places.work()

    async def open(self) -> None:
        self._poll_at = 0.0
        for parameters in (self._places.work(), self._places.listen()):
            opened = await PostgresConnection.open(parameters, self._options.answer_timeout)
            self._connections.append(opened)
        await self._ensure_schema()
        await self._listener.fetch(f'LISTEN "{self.schema.channel}"')

    async def close(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()

    def abort(self) -> None:
        for connection in self._connections:
            connection.abort()

    def abandon(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abandon()

    async def _ensure_schema(self) -> None:
        """Make the tables and functions unless they are there.

        Raises:
            ChannelsError: If they are not, and must not or cannot be made.
        """
        name = self.schema.function("write")
        if (await self._work.fetch("SELECT to_regproc(%s)", (name,)))[0][0] is not None:
            return
        hint = (
            f"have someone who may run what channels.backends.postgres.schema.schema_sql() returns "
            f"and grant the rights to use it (found: no function {name})"
        )
        if not self._options.create_schema:
            raise ChannelsError(f"The tables of the channel layer are missing: {hint}.")
        try:
            # One transaction; processes that start together take turns.
            await self._work.fetch(
                f"SELECT pg_advisory_xact_lock({self.schema.lock + 2});" + self.schema.create()
            )
        except psycopg.errors.InsufficientPrivilege as error:
            raise ChannelsError(
                f"The tables of the channel layer cannot be made ({error}): {hint}."
            ) from error

    # What a process does.

    async def register(self, node: str) -> Registration:
        query = f"SELECT * FROM {self.schema.function('register')}(%s)"
        ((fence, number, firsts, seconds, *rest),) = await self._work.fetch(query, (node,))
        return Registration(fence, number, list(zip(firsts, seconds, strict=True)), *rest)

    async def leave(self, node: str, fence: int) -> None:
        query = f"DELETE FROM {self.schema.table('node')} WHERE name = %s AND epoch = %s"
        await self._work.fetch(query, (node, fence))

    async def clock(self) -> tuple[int, int]:
        query = f"SELECT {CLOCK} + shift, shift FROM {self.schema.table('meta')}"
        for now, shift in await self._work.fetch(query):
            return now, shift
        raise TablesReplaced("the tables of the channel layer are empty")

    async def set_shift(self, before: int, after: int) -> None:
        query = f"UPDATE {self.schema.table('meta')} SET shift = %s WHERE shift = %s"
        await self._work.fetch(query, (after, before))

    async def write(
        self, node: str, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], dict[int, bytes]]:
        arguments = (
            *(node, fence, number, now, self._prefix, self._options.max_messages),
            _array(call.kind for call in calls),
            _array(f'"{call.name}"' for call in calls),
            _array(call.hash for call in calls),
            _array(call.extra for call in calls),
            _array(call.number for call in calls),
            _array(call.deadline for call in calls),
            [call.payload for call in calls],
        )
        try:
            ((firsts, seconds, tokens, leased),) = await self._work.fetch(self._write, arguments)
        except psycopg.Error as error:
            if isinstance(error, OperationalError) or error.sqlstate in _CURABLE:
                raise
            raise Refused(str(error)) from error
        return list(zip(firsts, seconds, strict=True)), dict(zip(tokens, leased, strict=True))

    async def tick(self, now: int) -> tuple[int | None, int]:
        query = f"SELECT * FROM {self.schema.function('tick')}(%s, %s)"
        ((wait, run_out),) = await self._work.fetch(query, (now, MOST_DUE))
        return wait, run_out

    async def clean(self, now: int, node_life: int) -> tuple[int, bool]:
        query = f"SELECT {self.schema.function('clean')}(%s, %s, %s)"
        ((count,),) = await self._work.fetch(query, (now, CLEAN_BATCH, node_life))
        return count, count >= CLEAN_BATCH

    # Reading.

    async def wait(self, wanted: Mapping[int, int]) -> set[int] | None:
        left = self._poll_at - asyncio.get_running_loop().time()
        told = await self._listener.wait_notified(left) if left > 0 else []
        if not told:
            self._poll_at = asyncio.get_running_loop().time() + self._options.poll_interval
        if not told or "*" in told:
            self._named = None
            return None
        hashes = {int(word) for payload in told for word in payload.split(",")}
        if self._named is not None:
            self._named |= hashes & wanted.keys()
        return hashes

    async def read(self, cursor: int, wanted: Mapping[int, int]) -> Page:
        named, self._named = self._named, set()
        names = list(wanted if len(wanted) <= MOST_NAMED else named or ())[:MOST_NAMED]
        rows = await self._listener.fetch(self._page, (names, cursor))
        if not rows:
            raise TablesReplaced("the tables of the channel layer are empty")
        incarnation, horizon, last, is_called, is_due, *_ = rows[0]
        found = [row[5:] for row in rows if row[5] is not None]
        mine = [row for row in found if wanted.get(row[1], row[0]) < row[0]]
        read = await self._payloads_of(mine)
        if len(read) < len(mine):
            # Cleaned away since.
            horizon = max(horizon, mine[-1][0])
        if found:
            cursor = found[-1][0]
        return Page(
            cursor,
            [(number, hashed, read[number]) for number, hashed, *_ in mine if number in read],
            horizon,
            incarnation,
            last if is_called else 0,
            is_last=len(found) < PAGE,
            is_due=is_due,
        )

    async def _payloads_of(self, rows: Sequence[Row]) -> dict[int, bytes]:
        """By id; those that did not come with the page are fetched, some megabytes at a time."""
        found = {number: payload for number, _, _, payload in rows if payload is not None}
        sizes = {number: size for number, _, size, payload in rows if payload is None}
        while sizes:
            batch: list[int] = []
            total = 0
            while sizes and (not batch or total + min(sizes.values()) <= FETCH_BYTES):
                number, size = sizes.popitem()
                batch.append(number)
                total += size
            found.update(await self._listener.fetch(self._payloads, (batch,)))
        return found


def _array(values: Iterable[object]) -> str:
    """An array as PostgreSQL reads it; the driver takes 45 µs longer for those of one call.

    Names are in quotes, since one may be "null"; by their grammar they have none themselves.
    """
    return f"{{{','.join(map(str, values))}}}"
