"""Carries out the calls of a process: each batch is one call of the write function."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import psycopg
from psycopg import OperationalError

from channels.backends.postgres.connection import Connection
from channels.backends.postgres.options import PostgresOptions
from channels.backends.postgres.schema import Schema
from channels.backends.tables.calls import Call, CallLine, Result, results_of

#: Seconds of silence after which an empty batch says that this process lives.
HEARTBEAT: Final = 5.0
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 1000
#: Held messages that are put into their queues in one go.
MOST_DUE: Final = 100
#: How often a batch is tried that the server refuses.
ATTEMPTS: Final = 3
#: A replaced connection, and tables or functions that are to be made again.
_CURABLE: Final = frozenset({"CH001", "42P01", "42883"})


class Serving(Protocol):
    """The session that a writer works for."""

    @property
    def is_finishing(self) -> bool:
        """True once all that was to be sent has been."""

    async def measure(self, connection: Connection) -> None:
        """Look at the server's clock."""


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
        self._write = (
            f"SELECT * FROM {schema.function('write')}(%s, %s, %s, %s, %s, %s::text[], %s::text[],"
            " %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[])"
        )
        self._clean = f"SELECT {schema.function('clean')}(%s, %s)"
        self._tick = f"SELECT * FROM {schema.function('tick')}(%s)"
        self._leave = f"DELETE FROM {schema.table('node')} WHERE name = %s AND epoch = %s"

    def prepare(self, node: str) -> None:
        """Begin anew as this node."""
        self._node = node

    async def run(self, connection: Connection, fence: int, session: Serving) -> None:
        """Carry out calls until the connection breaks, or the session is finishing; say good-bye.

        Raises:
            psycopg.Error: When it breaks.
        """
        loop, line = asyncio.get_running_loop(), self._line
        clean_at = loop.time() + random.random() * self._options.clean_interval
        measure_at = beat_at = loop.time() + HEARTBEAT
        while not session.is_finishing:
            if not line.is_waiting and not connection.is_aborted:
                await line.wait(min(beat_at, clean_at) - loop.time())
            began = loop.time()
            # A word of one that waits no more may have ended the wait: then there is nothing to do.
            if line.is_waiting or connection.is_aborted or began >= beat_at:
                await self._flush(connection, fence)
                beat_at = loop.time() + HEARTBEAT
            if loop.time() >= measure_at:
                await session.measure(connection)
                measure_at = loop.time() + HEARTBEAT
            if loop.time() >= clean_at:
                full = await self._clean_up(connection)
                clean_at = loop.time() + (0.1 if full else self._options.clean_interval)
            # At least once round: what was taken for readers that have gone comes back.
            await asyncio.sleep(max(0.0, began + self._options.flush_interval - loop.time()))
        await connection.fetch(self._leave, (self._node, fence))

    async def tick(self, connection: Connection) -> float | None:
        """As `Tick`."""
        ((wait, run_out),) = await connection.fetch(self._tick, (MOST_DUE,))
        self.counters["leases_run_out"] += run_out
        return None if wait is None else wait / 1000

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
        self._line.settle(results_of_row(rows[0]))

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
            _array(call.kind for call in flight),
            _array(f'"{call.name}"' for call in flight),
            _array(call.hash for call in flight),
            _array(call.extra for call in flight),
            _array(call.number for call in flight),
            _array(call.deadline for call in flight),
            [call.payload for call in flight],
        ]

    async def _clean_up(self, connection: Connection) -> bool:
        """Delete some of what has expired; True if there is more of it."""
        life = int(self._options.node_life * 1000)
        rows = await connection.fetch(self._clean, (CLEAN_BATCH, life))
        self.counters["cleaned"] += rows[0][0]
        return bool(rows[0][0] >= CLEAN_BATCH)


def _array(values: Iterable[object]) -> str:
    """An array as PostgreSQL reads it; the driver takes 45 µs longer for those of one call.

    Names are in quotes, since one may be "null"; by their grammar they have none themselves.
    """
    return f"{{{','.join(map(str, values))}}}"


def results_of_row(row: Sequence[Any]) -> dict[int, Result]:
    """What the write function gave, or the journal has of it."""
    firsts, seconds, pulled_by, pulled_id, pulled = row
    # Indexes of SQL begin with 1.
    indexes = [number - 1 for number in pulled_by]
    return results_of(firsts, seconds, list(zip(indexes, pulled_id, pulled, strict=True)))
