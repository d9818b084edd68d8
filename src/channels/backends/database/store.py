"""The statements of a session in a database of Django's, on two threads; see `TableStore`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import Error, connections

from channels.backends.database.options import DatabaseOptions
from channels.backends.database.statements import CLOCKS, STATEMENTS, Rows, Statements
from channels.backends.database.threads import WorkThread
from channels.backends.postgres.calls import Call, LeasedRow, Numbers
from channels.backends.postgres.table_store import TableStore
from channels.exceptions import InvalidChannelLayerError

T = TypeVar("T")


class DatabaseStore(TableStore[WorkThread]):
    """One thread writes, one reads.  Nothing wakes the reader up but this process's own writer."""

    name = "channel layer in the database"
    errors = (Error,)

    def __init__(self, alias: str, options: DatabaseOptions, prefix: str) -> None:
        super().__init__()
        self.statements = Statements(alias, options, prefix)
        self._options = options
        self._news = asyncio.Event()
        #: The log's last id when it was read last, and the pause before the next look.
        self._seen = -1
        self._pause = options.poll_shortest

    def check(self) -> None:
        check_alias(self.statements.alias)

    async def open(self) -> None:
        self._news = asyncio.Event()
        patience = self._options.answer_timeout
        self._connections = [
            WorkThread(f"channels-database-{end}", patience, self.statements.close)
            for end in ("write", "read")
        ]
        for thread in self._connections:
            await thread.do(self.statements.open)
        await self._connections[0].do(self.statements.create)

    def abort(self) -> None:
        super().abort()
        self._news.set()

    async def ask(self, statement: str, *arguments: Any) -> Rows:
        if statement != "page":
            return await self._do(STATEMENTS[statement], *arguments)
        rows = await self._connections[1].do(Statements.page, self.statements, *arguments)
        self._seen = rows[0][2]
        return rows

    async def write(
        self, node: int, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[list[Numbers], list[LeasedRow]]:
        return await self._do(Statements.write, node, fence, number, now, calls)

    async def _do(self, job: Callable[..., T], *arguments: Any) -> T:
        done = await self._connections[0].do(job, self.statements, *arguments)
        if self.statements.last_written > self._seen:
            self._news.set()
        return done

    async def wait(self) -> None:
        """Look soon again after traffic, later and later without."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._news.wait()
            self._news.clear()
            if await self._connections[1].do(self.statements.last) != self._seen:
                self._pause = self._options.poll_shortest
                return
            self._pause = min(self._options.poll_longest, self._pause * 1.3)


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
