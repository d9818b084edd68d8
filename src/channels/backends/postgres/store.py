"""The statements of a session on PostgreSQL; see `TableStore`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from channels.backends.postgres.address import Places
from channels.backends.postgres.calls import Call, LeasedRow, Numbers
from channels.backends.postgres.connection import PostgresConnection, Row
from channels.backends.postgres.options import PostgresOptions
from channels.backends.postgres.schema import Schema
from channels.backends.postgres.table_store import TableStore
from channels.exceptions import ChannelsError


class PostgresStore(TableStore[PostgresConnection]):
    """One connection writes, takes and cleans; one listens and reads."""

    name = "channel layer on PostgreSQL"
    errors = (psycopg.Error,)

    def __init__(self, places: Places, options: PostgresOptions, prefix: str) -> None:
        super().__init__()
        self.schema = Schema(options)
        self._places = places
        self._options = options
        self._prefix = prefix
        self._poll_at = 0.0

    def check(self) -> None:
        self._places.work()

    async def open(self) -> None:
        self._poll_at = 0.0
        for parameters in (self._places.work(), self._places.listen()):
            opened = await PostgresConnection.open(parameters, self._options.answer_timeout)
            self._connections.append(opened)
        await self._ensure_schema()
        await self._connections[1].fetch(f'LISTEN "{self.schema.channel}"')

    async def _ensure_schema(self) -> None:
        """Make the tables and functions unless they are there.

        Raises:
            ChannelsError: If they are not, and must not or cannot be made.
        """
        work, name = self._connections[0], self.schema.function("write")
        if (await work.fetch("SELECT to_regproc(%s)", (name,)))[0][0] is not None:
            return
        hint = (
            f"have someone who may run what channels.backends.postgres.schema.schema_sql() returns "
            f"and grant the rights to use it (found: no function {name})"
        )
        if not self._options.create_schema:
            raise ChannelsError(f"The tables of the channel layer are missing: {hint}.")
        try:
            # One transaction; processes that start together take turns.
            await work.fetch(
                f"SELECT pg_advisory_xact_lock({self.schema.lock + 2});" + self.schema.create()
            )
        except psycopg.errors.InsufficientPrivilege as error:
            raise ChannelsError(
                f"The tables of the channel layer cannot be made ({error}): {hint}."
            ) from error

    async def ask(self, statement: str, *arguments: Any) -> list[Row]:
        connection = self._connections[statement == "page"]
        return await connection.fetch(self.schema.statements[statement], arguments)

    async def write(
        self, node: int, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], list[LeasedRow]]:
        ((firsts, seconds, *leased),) = await self.ask(
            "write",
            *(node, fence, number, now, self._prefix, self._options.max_messages),
            _array(call.kind for call in calls),
            _array(call.hash for call in calls),
            _array(call.extra for call in calls),
            _array(call.number for call in calls),
            _array(call.deadline for call in calls),
            [call.payload for call in calls],
        )
        rows = [] if leased[0] is None else list(zip(*leased, strict=True))
        return list(zip(firsts, seconds, strict=True)), rows

    async def wait(self) -> set[int] | None:
        left = self._poll_at - asyncio.get_running_loop().time()
        told = await self._connections[1].wait_notified(left) if left > 0 else []
        if not told:
            self._poll_at = asyncio.get_running_loop().time() + self._options.poll_interval
        if not told or "*" in told:
            return None
        return {int(word) for payload in told for word in payload.split(",")}


def _array(values: Iterable[object]) -> str:
    """An array as PostgreSQL reads it; the driver takes 45 µs longer for those of one call."""
    return f"{{{','.join(map(str, values))}}}"
