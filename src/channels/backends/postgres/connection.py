"""One connection to the database: every statement ends in time, and it can be let go at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from channels.backends.shell import detach

Row = tuple[Any, ...]


class PostgresConnection:
    """A connection in autocommit mode.

    Args:
        answer_timeout: Seconds; a statement that takes longer breaks the connection.
    """

    def __init__(self, raw: AsyncConnection[Row], answer_timeout: float) -> None:
        self.raw = raw
        self._answer_timeout = answer_timeout
        self.is_aborted = False

    @classmethod
    async def open(cls, parameters: Mapping[str, Any], answer_timeout: float) -> PostgresConnection:
        """A new one.

        Raises:
            psycopg.Error, TimeoutError, OSError: If the server is out of reach or refuses.
        """
        # Statements are not prepared: behind a pooler the next one may meet another session.
        keywords = {"autocommit": True, "prepare_threshold": None, **parameters}
        async with asyncio.timeout(2 * answer_timeout):
            raw = await AsyncConnection.connect(**keywords)
        return cls(raw, answer_timeout)

    async def fetch(self, query: str, parameters: Sequence[Any] | None = None) -> list[Row]:
        """The rows of a statement, or none for one that gives no rows.

        Raises:
            psycopg.Error: If it failed, or the connection did or was aborted.
        """
        timer = asyncio.get_running_loop().call_later(self._answer_timeout, self.abort)
        try:
            # The text is put together from checked names only.
            cursor = await self.raw.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []
        finally:
            timer.cancel()

    async def wait_notified(self, timeout: float) -> list[str]:
        """The payloads of notifications that came, or come within `timeout` seconds.

        Raises:
            psycopg.Error: If the connection failed or was aborted.
        """
        notifies = self.raw.notifies(timeout=max(0.0, timeout), stop_after=1)
        return [notify.payload async for notify in notifies]

    def abort(self) -> None:
        """Break it: whatever waits for it fails at once."""
        if self.is_aborted or self.raw.closed:
            return
        self.is_aborted = True
        # The driver stays the owner of its descriptor; a copy of it reaches the same socket.
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.raw.pgconn.socket)) as copy,
        ):
            copy.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        with contextlib.suppress(psycopg.Error, OSError):
            await self.raw.close()

    def abandon(self) -> None:
        """Close the descriptor without a word to the server, which a forked parent still uses."""
        if self.raw.closed:
            return
        with contextlib.suppress(psycopg.Error):
            # What the driver says on its way out goes nowhere.
            detach(self.raw.pgconn.socket)
        self.raw.pgconn.finish()
