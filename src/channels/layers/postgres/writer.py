"""What a process asks of the database, in order and in batches.

Each batch is one statement: a call of the write function, which carries out its elements in order
and notes their results in the process's journal.  While a batch is under way the next is gathered.
A batch whose answer was lost is looked up in the journal by the connection that follows, and sent
again only if it is not there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import OperationalError

from channels.exceptions import ChannelLayerUnavailable
from channels.layers.postgres.connection import Connection, Row
from channels.layers.postgres.options import PostgresOptions
from channels.layers.postgres.schema import NEVER, Schema

#: Elements and bytes of one batch.
BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
#: Seconds of silence after which an empty batch says that this process lives.
HEARTBEAT: Final = 5.0
#: Expired rows deleted in one go.
CLEAN_BATCH: Final = 1000

#: What comes of an element: two numbers, and what was pulled with its ids.
Result = tuple[int, int, list[tuple[int, bytes]]]


@dataclass(slots=True)
class Call:
    """One element of a batch; see the write function for what each kind uses."""

    kind: str
    name: str = ""
    hash: int = 0
    extra: int = 0
    number: int = 0
    deadline: int = NEVER
    payload: bytes = b""
    answer: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Writer:
    """The line of calls of one process; it outlives its connections."""

    def __init__(self, schema: Schema, options: PostgresOptions, prefix: str) -> None:
        self.counters: Counter[str] = Counter()
        self._options = options
        self._prefix = prefix
        self._node = ""
        self._waiting: deque[Call] = deque()
        self._flight: list[Call] = []
        self._number = 0
        self._failures = 0
        self._wake = asyncio.Event()
        self._is_finishing = False
        self._write = (
            f"SELECT * FROM {schema.function('write')}(%s, %s, %s, %s, %s, %s::text[], %s::text[],"
            " %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %b::bytea[])"
        )
        self._clean = f"SELECT {schema.function('clean')}(%s, %s)"
        self._leave = f"DELETE FROM {schema.table('node')} WHERE name = %s AND epoch = %s"

    def prepare(self, node: str) -> None:
        """Begin anew, on the running loop, as this node."""
        self._node = node
        self._waiting.clear()
        self._flight = []
        self._number = 0
        self._wake = asyncio.Event()
        self._is_finishing = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flight)

    def put(self, call: Call) -> asyncio.Future[Result]:
        """Append a call; its place in the order is taken at once.

        Raises:
            ChannelLayerUnavailable: If too many wait.
        """
        if len(self._waiting) >= self._options.max_pending:
            self.counters["refused_pending"] += 1
            raise ChannelLayerUnavailable(
                f"{len(self._waiting)} calls wait for the database already "
                f"(max_pending={self._options.max_pending})."
            )
        self._waiting.append(call)
        self._wake.set()
        return call.answer

    def recover(self, number: int, row: Row) -> None:
        """A new connection has the journal: settle the batch whose answer was lost.

        Args:
            number: The last batch that was carried out.
            row: Its results.
        """
        flight, self._flight = self._flight, []
        if flight and number == self._number:
            self.counters["recovered"] += len(flight)
            self._settle(flight, row)
        else:
            self._waiting.extendleft(reversed(flight))
        if self._waiting:
            self._wake.set()

    async def run(self, connection: Connection, fence: int) -> None:
        """Carry out calls until the connection breaks, or `finish` is called.

        Raises:
            psycopg.Error: When it breaks.
        """
        loop = asyncio.get_running_loop()
        clean_at = loop.time() + random.random() * self._options.clean_interval
        while not (self._is_finishing and not self._waiting):
            self._wake.clear()
            if not self._waiting and not connection.is_aborted:
                await self._idle(min(HEARTBEAT, clean_at - loop.time()))
            began = loop.time()
            await self._flush(connection, fence)
            if loop.time() >= clean_at:
                full = await self._clean_up(connection)
                clean_at = loop.time() + (0.1 if full else self._options.clean_interval)
            pause = began + self._options.flush_interval - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
        await connection.fetch(self._leave, (self._node, fence))

    def rouse(self) -> None:
        """Have `run` find out at once that its connection was broken."""
        self._wake.set()

    def finish(self) -> None:
        """Send what waits, say good-bye, and let `run` return."""
        self._is_finishing = True
        self._wake.set()

    async def _idle(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _flush(self, connection: Connection, fence: int) -> None:
        flight = self._flight = self._gather()
        self._number += 1
        self.counters["batches"] += 1
        try:
            rows = await connection.fetch(
                self._write, (self._node, fence, self._number, *self._arguments(flight))
            )
        except psycopg.Error as error:
            self._reject_if_hopeless(flight, error)
            raise
        self._failures = 0
        self._flight = []
        self._settle(flight, rows[0])

    def _reject_if_hopeless(self, flight: Sequence[Call], error: psycopg.Error) -> None:
        """The server refuses these; trying for ever would stop all that comes after them."""
        if isinstance(error, OperationalError) or error.sqlstate in {"CH001", "42P01", "42883"}:
            # The connection, the server's state, our fence, or tables that are to be made again.
            return
        self._failures += 1
        if self._failures < 3:
            return
        self._failures = 0
        self._flight = []
        self.counters["refused"] += len(flight)
        for call in flight:
            if not call.answer.done():
                call.answer.set_exception(
                    ChannelLayerUnavailable(f"PostgreSQL refused to write: {error}")
                )

    def _gather(self) -> list[Call]:
        """The next batch, without the calls that were cancelled meanwhile."""
        found: list[Call] = []
        size = 0
        while self._waiting and len(found) < BATCH and size < BATCH_BYTES:
            call = self._waiting.popleft()
            if not call.answer.cancelled():
                found.append(call)
                size += len(call.payload)
        return found

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

    @staticmethod
    def _settle(flight: Sequence[Call], row: Row) -> None:
        firsts, seconds, pulled_by, pulled_id, pulled = row
        taken: dict[int, list[tuple[int, bytes]]] = {}
        for by, number, payload in zip(pulled_by, pulled_id, pulled, strict=True):
            taken.setdefault(by, []).append((number, payload))
        for index, call in enumerate(flight):
            if not call.answer.done():
                call.answer.set_result((firsts[index], seconds[index], taken.get(index + 1, [])))

    async def _clean_up(self, connection: Connection) -> bool:
        """Delete some of what has expired; True if there is more of it."""
        life = int(self._options.node_life * 1000)
        rows = await connection.fetch(self._clean, (CLEAN_BATCH, life))
        self.counters["cleaned"] += rows[0][0]
        return bool(rows[0][0] >= CLEAN_BATCH)
