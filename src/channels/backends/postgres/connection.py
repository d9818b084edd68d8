"""One connection to the database: every statement ends in time, and it can be let go at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, Notify

Row = tuple[Any, ...]


class Connection:
    """A connection in autocommit mode.

    Args:
        answer_timeout: Seconds; a statement that takes longer breaks the connection.
    """

    def __init__(self, raw: AsyncConnection[Row], answer_timeout: float) -> None:
        self.raw = raw
        self._answer_timeout = answer_timeout
        self.is_aborted = False
        self._notified: list[str] = []
        raw.add_notify_handler(self._note)

    @classmethod
    async def open(cls, parameters: Mapping[str, Any], answer_timeout: float) -> Connection:
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

        By the driver's core: every process is woken by every send, its own too, and the driver's
        own iterator takes 0.1 ms more of the processor for that.

        Raises:
            psycopg.Error: If the connection failed or was aborted.
        """
        if not self._notified:
            loop = asyncio.get_running_loop()
            arrived: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(max(0.0, timeout), _settle, arrived)
            number = self.raw.pgconn.socket
            loop.add_reader(number, self._take_notified, arrived)
            try:
                await arrived
            finally:
                loop.remove_reader(number)
                timer.cancel()
        found, self._notified = self._notified, []
        return found

    def _take_notified(self, arrived: asyncio.Future[None]) -> None:
        """The socket has something."""
        try:
            self.raw.pgconn.consume_input()
            while (notify := self.raw.pgconn.notifies()) is not None:
                self._notified.append(notify.extra.decode())
        except psycopg.Error as error:
            if not arrived.done():
                arrived.set_exception(error)
        else:
            if self._notified:
                _settle(arrived)

    def _note(self, notify: Notify) -> None:
        """One came with the answer to a statement."""
        self._notified.append(notify.payload)

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
        with contextlib.suppress(OSError, psycopg.Error):
            null = os.open(os.devnull, os.O_RDWR)
            try:
                # What the driver says on its way out goes there.
                os.dup2(null, self.raw.pgconn.socket)
            finally:
                os.close(null)
        self.raw.pgconn.finish()


def _settle(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)
