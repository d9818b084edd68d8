"""The statements of a session in a database of Django's, on two threads; see `TableStore`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from django.db import Error, connections

from channels.backends.database.options import DatabaseOptions
from channels.backends.database.statements import CLOCKS, PAGE, Statements
from channels.backends.database.threads import WorkThread
from channels.backends.postgres.calls import Call, Numbers
from channels.backends.postgres.table_store import Page, Registration
from channels.exceptions import InvalidChannelLayerError


class DatabaseStore:
    """One thread writes, one reads.  Nothing wakes the reader up but this process's own writer."""

    name = "channel layer in the database"
    errors: tuple[type[Exception], ...] = (Error,)

    def __init__(self, alias: str, options: DatabaseOptions, prefix: str) -> None:
        self.statements = Statements(alias, options, prefix)
        self._options = options
        self._threads: list[WorkThread] = []
        self._news = asyncio.Event()
        #: The log's last id when it was read last, and the pause before the next look.
        self._seen = -1
        self._pause = options.poll_shortest
        #: The first batch of a connection may ask for leases once more.
        self._is_fresh = True

    @property
    def _writer(self) -> WorkThread:
        return self._threads[0]

    @property
    def _reader(self) -> WorkThread:
        return self._threads[1]

    def check(self) -> None:
        check_alias(self.statements.alias)

    async def open(self) -> None:
        self._news = asyncio.Event()
        self._is_fresh = True
        patience = self._options.answer_timeout
        self._threads = [
            WorkThread(f"channels-database-{end}", patience, self.statements.close)
            for end in ("write", "read")
        ]
        for thread in self._threads:
            await thread.do(self.statements.open)
        await self._writer.do(self.statements.create)

    async def close(self) -> None:
        """With their connections.  A thread that hangs is left behind; its fence holds it off."""
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()
        for thread in threads:
            await thread.ended(0.2)

    def abort(self) -> None:
        for thread in self._threads:
            thread.abort()
        self._news.set()

    def abandon(self) -> None:
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()

    # What a process does.

    async def register(self, node: str) -> Registration:
        return await self._writer.do(self.statements.register, node)

    async def leave(self, node: str, fence: int) -> None:
        await self._writer.do(self.statements.leave, node, fence)

    async def clock(self) -> tuple[int, int]:
        return await self._writer.do(self.statements.clock)

    async def set_shift(self, before: int, after: int) -> None:
        await self._writer.do(self.statements.set_shift, before, after)

    async def write(
        self, node: str, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[Sequence[Numbers], Mapping[int, bytes]]:
        if calls and not self._is_fresh and all(call.kind == "l" for call in calls):
            # Most looks at queues find nothing: no need to take the counter's row.
            hashes = {call.hash for call in calls}
            if not await self._writer.do(self.statements.has_any, now, hashes):
                return [(0, 0)] * len(calls), {}
        job = self.statements.write
        results, leased, last = await self._writer.do(job, node, fence, number, now, calls)
        self._is_fresh = False
        self._tell(last)
        return results, leased

    async def tick(self, now: int) -> tuple[int | None, int]:
        wait, run_out, last = await self._writer.do(self.statements.tick, now)
        self._tell(last)
        return wait, run_out

    def _tell(self, last: int) -> None:
        if last > self._seen:
            self._news.set()

    async def clean(self, now: int, node_life: int) -> tuple[int, bool]:
        return await self._writer.do(self.statements.clean, now, node_life)

    # Reading.

    async def wait(self, wanted: Mapping[int, int]) -> None:  # noqa: ARG002 - it cannot be asked
        """Look soon again after traffic, later and later without."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._news.wait()
            self._news.clear()
            if await self._reader.do(self.statements.last) != self._seen:
                self._pause = self._options.poll_shortest
                return
            self._pause = min(self._options.poll_longest, self._pause * 1.3)

    async def read(self, cursor: int, wanted: Mapping[int, int]) -> Page:
        counter, found = await self._reader.do(self.statements.page, cursor)
        mine = [row for row in found if wanted.get(row[1], row[0]) < row[0]]
        ids = [number for number, _ in mine]
        payloads, horizon = await self._reader.do(self.statements.payloads, ids)
        if len(payloads) < len(mine):
            # Cleaned away since.
            horizon = max(horizon, ids[-1])
        is_last = len(found) < PAGE
        self._seen = counter.last
        return Page(
            counter.last if is_last else found[-1][0],
            [(number, hashed, payloads[number]) for number, hashed in mine if number in payloads],
            horizon,
            counter.incarnation,
            counter.last,
            is_last,
        )


def check_alias(alias: str) -> None:
    """A database that several connections can share, or a test's, whose tables are kept elsewhere.

    Raises:
        InvalidChannelLayerError: If there is none of this name, it is in memory, or its kind is
            none of those whose clock this layer can read.
    """
    if alias not in connections.settings:
        raise InvalidChannelLayerError(
            f"database={alias!r}: expected an alias of DATABASES, which has "
            f"{', '.join(sorted(connections.settings))}."
        )
    found = connections.settings[alias]
    if found["ENGINE"].endswith("sqlite3") and ":memory:" in str(found["NAME"]):
        raise InvalidChannelLayerError(
            f"database={alias!r} is an SQLite database in memory, which each connection has for "
            "itself: expected a file, or InMemoryChannelLayer for one process."
        )
    vendor = connections[alias].vendor
    if vendor not in CLOCKS:
        raise InvalidChannelLayerError(
            f"database={alias!r} is of the kind {vendor!r}: expected one of {', '.join(CLOCKS)}."
        )
