"""The transport over PostgreSQL: tables, with one connection that writes and one that listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from channels.backends.postgres.options import Places, PostgresOptions
from channels.backends.postgres.reader import Reader
from channels.backends.postgres.schema import Schema
from channels.backends.postgres.session import Session
from channels.backends.postgres.writer import Writer
from channels.backends.tables.calls import CallLine
from channels.backends.tables.transport import TableTransport
from channels.layers.contract import Capabilities, TransportEvents

#: Seconds that a good-bye may take.
CLOSE_SECONDS: Final = 0.7


class PostgresTransport(TableTransport):
    """Moves envelopes through tables; see `channels.backends.postgres`."""

    def __init__(self, places: Places, options: PostgresOptions, prefix: str) -> None:
        super().__init__(CallLine(options.max_pending), prefix, options.max_messages)
        self.capabilities: Final = Capabilities(delays=True, queue_members=True)
        self.schema = Schema(options)
        self._options = options
        self._writer = Writer(self.line, self.schema, options, prefix)
        self._reader: Reader | None = None
        self._session = Session(places, self.schema, options, self)

    @property
    def clock_offset(self) -> float:
        return self._session.clock_offset

    async def start(self, node: str, events: TransportEvents) -> None:
        self.begin(node, events)
        self._reader = Reader(self, self.schema, self._options, events)
        self._writer.prepare(node)
        self._session.start(node, self._writer, self._reader, events)

    async def stop(self) -> None:
        await self._session.stop(CLOSE_SECONDS)
        self._end()

    def abandon(self) -> None:
        self._session.abandon()
        self._end()

    def _end(self) -> None:
        if self._reader is not None:
            self.counters.update(self._reader.counters)
            self._reader = None
        self.forget()

    def statistics(self) -> Mapping[str, int]:
        counted = self.counted()
        counted.update(self._writer.counters)
        if self._reader is not None:
            counted.update(self._reader.counters)
            counted["holes"] = len(self._reader.holes)
        return counted
