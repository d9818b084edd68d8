"""A transport on a broker's client library: RabbitMQ by aiormq, NATS by nats-py.

The library speaks the protocol of one connection.  Here is what the layer wants beside it: the next
connection after one that broke, the errors of the contract, and what outlives a connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from channels.backends.shell import Backoff, OpenConnection, Supervisor, run_until_one_fails
from channels.exceptions import TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Backlog, Capabilities, Leased, Taker, TransportEvents
from channels.layers.envelope import Envelope

A = TypeVar("A")
C = TypeVar("C", bound=OpenConnection)

#: Seconds that a good-bye may take.
_CLOSE_SECONDS: Final = 0.8


class ReadDemand:
    """How many messages of a queue this process wants, for how long each, and who takes them.

    Args:
        table: All demands of the process, by queue; it is removed from it when it is met.
    """

    def __init__(
        self, table: dict[str, ReadDemand], queue: str, count: int, seconds: float, taker: Taker
    ) -> None:
        self.queue = queue
        self.count = count
        self.seconds = seconds
        self._table = table
        self._taker = taker
        self._keep()

    def take(self, data: Envelope | bytes, token: bytes, attempts: int) -> None:
        """Hand over a message on lease."""
        self.count = max(0, self.count - 1)
        self._keep()
        self._taker(Leased(self.queue, data, token, attempts))

    def _keep(self) -> None:
        if self.count:
            self._table[self.queue] = self
        else:
            self._table.pop(self.queue, None)


class Reader(Protocol):
    """The queues as one connection reads them; its ends of leases are `WorkQueue`'s."""

    def serve(self, demand: ReadDemand) -> None:
        """Read a queue as is demanded from now on."""

    def shut(self) -> None:
        """The connection is no more."""

    async def acknowledge(self, token: bytes) -> bool: ...
    async def release(self, token: bytes, delay: float, counted: bool) -> bool: ...
    async def extend(self, token: bytes, seconds: float) -> bool: ...

    async def count(self, queue: str) -> int:
        """How many messages of a queue are on no lease."""


R = TypeVar("R", bound=Reader)


class DriverTransport(ABC, Generic[A, C, R]):
    """Everything of a `Transport` but its sends, groups and flush.

    Args:
        connection: Its class.
        addresses: Of one cluster; each attempt to connect is at the next one.
    """

    capabilities: Final = Capabilities()

    def __init__(self, connection: type[C], addresses: Sequence[A]) -> None:
        self._kind = connection
        self._addresses = deque(addresses)
        self._counters: Counter[str] = Counter()
        #: The present connection; and the reader of queues over it, once it is up.
        self._connection: C | None = None
        self._reader: R | None = None
        self._demands: dict[str, ReadDemand] = {}
        self._node = ""
        self._events: TransportEvents
        self._scope: TaskScope
        self._backoff: Backoff

    @property
    def clock_offset(self) -> float:
        """These brokers tell no time, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._demands.clear()
        self._scope = TaskScope(f"channel layer on {self._kind.name}")
        self._forget()
        supervisor = Supervisor(self._kind.name, self._serve, self._kind.errors, events.on_down)
        self._backoff = supervisor.backoff
        self._scope.spawn(supervisor.run(), name="connection")

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._connection is not None and self._reader is not None:
                    await self._leave(self._connection, self._reader)
        except (TimeoutError, TransportDown):
            self._counters["closed_rudely"] += 1
        await self._scope.close()
        self._forget()

    def abandon(self) -> None:
        connection, self._connection, self._reader = self._connection, None, None
        if connection is not None:
            connection.abandon()

    async def _serve(self) -> None:
        """Be up until the connection breaks."""
        address = self._addresses[0]
        self._addresses.rotate(-1)
        connection = self._connection = await self._connect(address)
        self._backoff.made()
        try:
            await run_until_one_fails(self._use(connection), connection.until_ended())
        finally:
            reader, self._connection, self._reader = self._reader, None, None
            if reader is not None:
                reader.shut()
                if connection.ended.done():
                    self._counters["disconnected"] += 1
            await connection.close()

    async def _use(self, connection: C) -> None:
        reader, kept = await self._prepare(connection)
        self._reader = reader
        self._backoff.reset()
        for demand in list(self._demands.values()):
            reader.serve(demand)
        self._events.on_up(kept)

    def _require(self) -> tuple[C, R]:
        connection, reader = self._connection, self._reader
        if connection is None or reader is None or connection.ended.done():
            raise TransportDown(f"{self._kind.name} is not connected")
        return connection, reader

    # What a driver adds.

    @abstractmethod
    def _forget(self) -> None:
        """Begin anew, or end; there is no connection."""

    @abstractmethod
    async def _connect(self, address: A) -> C:
        """Connect and log in."""

    @abstractmethod
    async def _prepare(self, connection: C) -> tuple[R, bool]:
        """Set a connection up; also, whether the broker kept what came meanwhile."""

    @abstractmethod
    async def _leave(self, connection: C, reader: R) -> None:
        """The process ends: say so."""

    # Leases.

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        demand = ReadDemand(self._demands, queue, count, seconds, taker)
        if self._reader is not None:
            self._reader.serve(demand)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        connection, reader = self._require()
        return await connection.carry_out(reader.acknowledge(token), is_call=True)

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        connection, reader = self._require()
        return await connection.carry_out(reader.release(token, delay, counted), is_call=True)

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        connection, reader = self._require()
        return await connection.carry_out(reader.extend(token, seconds), is_call=True)

    async def backlog(self, queue: str) -> Backlog:
        connection, reader = self._require()
        return Backlog(await connection.carry_out(reader.count(queue), is_call=True))

    def statistics(self) -> Mapping[str, int]:
        return self._counters
