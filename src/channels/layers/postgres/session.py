"""Both connections of a process: made, held, and made again.

They stand and fall together.  With each new pair the process's fence is raised, so that a batch
which an old connection left behind is either in the journal or never carried out.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

import psycopg

from channels.exceptions import ChannelsError
from channels.kit.tasks import TaskScope
from channels.layers.postgres.connection import Connection
from channels.layers.postgres.options import Places, PostgresOptions
from channels.layers.postgres.reader import Reader
from channels.layers.postgres.schema import Schema
from channels.layers.postgres.writer import Writer
from channels.layers.tables.transport import TableTransport
from channels.layers.transport import TransportEvents

logger = logging.getLogger("channels.layers")

#: Seconds between attempts: the first, and the longest.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0

_ERRORS: Final = (psycopg.Error, OSError, TimeoutError, ChannelsError)


class Session:
    """Keeps a node connected."""

    def __init__(
        self, places: Places, schema: Schema, options: PostgresOptions, transport: TableTransport
    ) -> None:
        self.clock_offset = 0.0
        self._places = places
        self._schema = schema
        self._options = options
        self._transport = transport
        self._incarnation: str | None = None
        self._is_stopping = False
        self._connections: list[Connection] = []
        self._scope = TaskScope("channel layer on PostgreSQL")
        self._pause = FIRST_PAUSE
        self._writer: Writer
        self._reader: Reader
        self._events: TransportEvents
        self._node = ""

    def start(self, node: str, writer: Writer, reader: Reader, events: TransportEvents) -> None:
        """Begin to connect.

        Raises:
            InvalidChannelLayerError: If there is no such database in the settings.
        """
        self._places.work()
        self._node, self._events = node, events
        self._writer, self._reader = writer, reader
        self._incarnation = None
        self._is_stopping = False
        self._connections = []
        self._scope = TaskScope("channel layer on PostgreSQL")
        self._scope.spawn(self._run(), name="connections to PostgreSQL")

    async def stop(self, patience: float) -> None:
        """Send what waits and close; rudely after `patience` seconds."""
        self._is_stopping = True
        self._writer.finish()
        if not (self._transport.is_up and await self._scope.join(patience)):
            self.abort()
        await self._scope.close()
        self._transport.is_up = False

    def abort(self) -> None:
        """Break both connections."""
        for connection in self._connections:
            connection.abort()

    def abandon(self) -> None:
        self._transport.is_up = False
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abandon()

    async def _run(self) -> None:
        is_told_down = False
        while not self._is_stopping:
            error: BaseException | None = None
            was_up = False
            try:
                await self._hold()
            except _ERRORS as problem:
                error = problem
            except Exception as problem:
                # A mistake of ours must not end the process's messages for good.
                logger.exception("The channel layer failed and connects again")
                error = problem
            finally:
                was_up, self._transport.is_up = self._transport.is_up, False
                await self._close()
            if self._is_stopping:
                return
            if was_up or not is_told_down:
                is_told_down = True
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    async def _open(self, parameters: dict[str, object]) -> Connection:
        connection = await Connection.open(parameters, self._options.answer_timeout)
        self._connections.append(connection)
        return connection

    async def _close(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()

    async def _hold(self) -> None:
        """Connect, and serve until a connection breaks or the end has come."""
        work = await self._open(self._places.work())
        await self._ensure_schema(work)
        began = time.time()
        row = (await work.fetch(self._register, (self._node,)))[0]
        fence, number, *results, incarnation, horizon, last, now = row
        self.clock_offset = now / 1000 - (began + time.time()) / 2
        self._writer.recover(number, tuple(results))
        listener = await self._open(self._places.listen())
        await listener.fetch(f'LISTEN "{self._schema.channel}"')
        is_first = self._incarnation is None
        kept = self._incarnation == incarnation
        self._incarnation = incarnation
        missed = self._position(is_first, kept, horizon, last)
        if is_first:
            await self._reader.look_back(listener)
        self._pause = FIRST_PAUSE
        self._transport.is_up = True
        self._events.on_up(kept)
        if missed:
            self._events.on_gap(None)
        await self._serve(work, fence, listener)

    @property
    def _register(self) -> str:
        return f"SELECT * FROM {self._schema.function('register')}(%s)"

    def _position(self, is_first: bool, kept: bool, horizon: int, last: int) -> bool:
        """Where to read on; True if something may have been missed meanwhile."""
        reader = self._reader
        if is_first:
            reader.begin(last)
            self._transport.want_node(last)
            return False
        if not kept:
            # A new log: the server crashed, or another has taken its place.  All of it is new.
            reader.begin(0)
            self._transport.want_all()
            return False
        if last < reader.cursor:
            # The server lost the end of its log and will give out its ids again.
            reader.begin(last)
            return True
        return horizon > reader.cursor

    async def _serve(self, work: Connection, fence: int, listener: Connection) -> None:
        def seen(task: asyncio.Task[object]) -> None:
            """Its error is raised below."""

        tasks = [
            self._scope.spawn(self._writer.run(work, fence), name="writer", on_done=seen),
            self._scope.spawn(self._reader.run(listener), name="reader", on_done=seen),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(iter(done))
        finally:
            # Not cancelled: the driver would ask the server first, which may not answer.
            self.abort()
            self._transport.line.rouse()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        first.result()

    async def _ensure_schema(self, connection: Connection) -> None:
        """Make the tables and functions unless they are there.

        Raises:
            ChannelsError: If they are not, and must not or cannot be made.
        """
        name = self._schema.function("write")
        if (await connection.fetch("SELECT to_regproc(%s)", (name,)))[0][0] is not None:
            return
        hint = (
            f"have someone who may run what channels.layers.postgres.schema.schema_sql() returns "
            f"and grant the rights to use it (found: no function {name})"
        )
        if not self._options.create_schema:
            raise ChannelsError(f"The tables of the channel layer are missing: {hint}.")
        try:
            # One transaction; processes that start together take turns.
            await connection.fetch(
                f"SELECT pg_advisory_xact_lock({self._schema.lock + 2});" + self._schema.create()
            )
        except psycopg.errors.InsufficientPrivilege as error:
            raise ChannelsError(
                f"The tables of the channel layer cannot be made ({error}): {hint}."
            ) from error
