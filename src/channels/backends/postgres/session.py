"""Both connections of a process to PostgreSQL; they stand and fall together."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import psycopg

from channels.backends.postgres.connection import Connection
from channels.backends.postgres.options import Places, PostgresOptions
from channels.backends.postgres.reader import Reader
from channels.backends.postgres.schema import NOW, Schema
from channels.backends.postgres.writer import Writer, results_of_row
from channels.backends.tables.session import Registration, TableSession
from channels.backends.tables.transport import TableTransport
from channels.exceptions import ChannelsError
from channels.kit.clock import wall_ahead
from channels.layers.contract import TransportEvents


class Session(TableSession):
    """Keeps a node connected, with a connection for each of a writer and a reader."""

    def __init__(
        self, places: Places, schema: Schema, options: PostgresOptions, transport: TableTransport
    ) -> None:
        super().__init__(transport, (psycopg.Error,), "channel layer on PostgreSQL")
        # Until the server has told its time.
        self.clock_offset = wall_ahead()
        self._places = places
        self._schema = schema
        self._options = options
        self._connections: list[Connection] = []
        self._writer: Writer
        self._reader: Reader

    def start(self, node: str, writer: Writer, reader: Reader, events: TransportEvents) -> None:
        """Begin to connect.

        Raises:
            InvalidChannelLayerError: If there is no such database in the settings.
        """
        self._places.work()
        self._writer, self._reader = writer, reader
        self._connections = []
        self.begin(node, events)

    def abandon(self) -> None:
        self._transport.is_up = False
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abandon()

    async def _open(self, parameters: dict[str, object]) -> Connection:
        connection = await Connection.open(parameters, self._options.answer_timeout)
        self._connections.append(connection)
        return connection

    async def _close(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.close()

    def _abort(self) -> None:
        for connection in self._connections:
            connection.abort()

    async def _interrupt(self, tasks: list[asyncio.Task[Any]]) -> None:  # noqa: ARG002
        # Not cancelled: the driver would ask the server first, which may not answer.
        self._abort()
        self._transport.line.rouse()
        self._transport.ticker.due_in(0.0)

    async def _hold(self) -> None:
        work = await self._open(self._places.work())
        await self._ensure_schema(work)
        found = await self._register(work)
        listener = await self._open(self._places.listen())
        await listener.fetch(f'LISTEN "{self._schema.channel}"')
        resumption = self._take_up(found, self._reader.cursor)
        if resumption.cursor != self._reader.cursor or not resumption.kept:
            self._reader.begin(resumption.cursor)
        if resumption.is_first:
            await self._reader.look_back(listener)
        self._go_up(resumption)
        await self._serve(
            self._writer.run(work, found.fence, self),
            self._reader.run(listener),
            self._transport.ticker.run(partial(self._writer.tick, work)),
        )

    async def measure(self, connection: Connection) -> None:
        """Look at the server's clock, which may have stepped."""
        began = time.monotonic()
        ((now,),) = await connection.fetch(f"SELECT {NOW}")
        self._tell_time(began, now)

    def _tell_time(self, began: float, now: int) -> None:
        self.clock_offset = now / 1000 - (began + time.monotonic()) / 2

    async def _register(self, work: Connection) -> Registration:
        began = time.monotonic()
        query = f"SELECT * FROM {self._schema.function('register')}(%s)"
        ((fence, number, *row, incarnation, horizon, last, now),) = await work.fetch(
            query, (self._node,)
        )
        self._tell_time(began, now)
        return Registration(fence, number, results_of_row(row), incarnation, horizon, last)

    async def _ensure_schema(self, connection: Connection) -> None:
        """Make the tables and functions unless they are there.

        Raises:
            ChannelsError: If they are not, and must not or cannot be made.
        """
        name = self._schema.function("write")
        if (await connection.fetch("SELECT to_regproc(%s)", (name,)))[0][0] is not None:
            return
        hint = (
            f"have someone who may run what channels.backends.postgres.schema.schema_sql() returns "
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
