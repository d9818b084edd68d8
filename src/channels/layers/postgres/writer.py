"""Carries out the calls of a process: each batch is one call of the write function."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import OperationalError

from channels.layers.postgres.connection import Connection, Row
from channels.layers.postgres.options import PostgresOptions
from channels.layers.postgres.schema import Schema
from channels.layers.tables.calls import Call, CallLine, Result, results_of

#: Seconds of silence after which an empty batch says that this process lives.
HEARTBEAT: Final = 5.0
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 1000
#: How often a batch is tried that the server refuses.
ATTEMPTS: Final = 3
#: A replaced connection, and tables or functions that are to be made again.
_CURABLE: Final = frozenset({"CH001", "42P01", "42883"})


class Writer:
    """Works off a line of calls on one connection after the other."""

    def __init__(
        self, line: CallLine, schema: Schema, options: PostgresOptions, prefix: str
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._line = line
        self._options = options
        self._prefix = prefix
        self._node = ""
        self._failures = 0
        self._is_finishing = False
        self._write = (
            f"SELECT * FROM {schema.function('write')}(%s, %s, %s, %s, %s, %s::text[], %s::text[],"
            " %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[])"
        )
        self._clean = f"SELECT {schema.function('clean')}(%s, %s)"
        self._leave = f"DELETE FROM {schema.table('node')} WHERE name = %s AND epoch = %s"

    def prepare(self, node: str) -> None:
        """Begin anew as this node."""
        self._node = node
        self._is_finishing = False

    def recover(self, number: int, row: Row) -> None:
        """As `CallLine.recover`; `row` is what the write function gave."""
        self._line.recover(number, _results(row))

    async def run(self, connection: Connection, fence: int) -> None:
        """Carry out calls until the connection breaks, or `finish` is called.

        Raises:
            psycopg.Error: When it breaks.
        """
        loop, line = asyncio.get_running_loop(), self._line
        clean_at = loop.time() + random.random() * self._options.clean_interval
        while not (self._is_finishing and not line.is_waiting):
            if not line.is_waiting and not connection.is_aborted:
                await line.wait(min(HEARTBEAT, clean_at - loop.time()))
            began = loop.time()
            await self._flush(connection, fence)
            if loop.time() >= clean_at:
                full = await self._clean_up(connection)
                clean_at = loop.time() + (0.1 if full else self._options.clean_interval)
            pause = began + self._options.flush_interval - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
        await connection.fetch(self._leave, (self._node, fence))

    def finish(self) -> None:
        """Send what waits, say good-bye, and let `run` return."""
        self._is_finishing = True
        self._line.rouse()

    async def _flush(self, connection: Connection, fence: int) -> None:
        flight = self._line.gather()
        try:
            rows = await connection.fetch(
                self._write, (self._node, fence, self._line.number, *self._arguments(flight))
            )
        except psycopg.Error as error:
            self._reject_if_hopeless(error)
            raise
        self._failures = 0
        self._line.settle(_results(rows[0]))

    def _reject_if_hopeless(self, error: psycopg.Error) -> None:
        """The server refuses these; trying for ever would stop all that comes after them."""
        if isinstance(error, OperationalError) or error.sqlstate in _CURABLE:
            return
        self._failures += 1
        if self._failures >= ATTEMPTS:
            self._failures = 0
            self._line.reject(error)

    def _arguments(self, flight: Sequence[Call]) -> list[Any]:
        return [
            self._prefix,
            self._options.max_messages,
            [call.kind for call in flight],
            [call.name for call in flight],
            [call.hash for call in flight],
            [call.extra for call in flight],
            [call.number for call in flight],
            [call.deadline for call in flight],
            [call.payload for call in flight],
        ]

    async def _clean_up(self, connection: Connection) -> bool:
        """Delete some of what has expired; True if there is more of it."""
        life = int(self._options.node_life * 1000)
        rows = await connection.fetch(self._clean, (CLEAN_BATCH, life))
        self.counters["cleaned"] += rows[0][0]
        return bool(rows[0][0] >= CLEAN_BATCH)


def _results(row: Row) -> dict[int, Result]:
    firsts, seconds, pulled_by, pulled_id, pulled = row
    # Indexes of SQL begin with 1.
    indexes = [number - 1 for number in pulled_by]
    return results_of(firsts, seconds, list(zip(indexes, pulled_id, pulled, strict=True)))
