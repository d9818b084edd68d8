"""A transport on a driver: what goes on from one connection to the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from channels.backends.driver import DriverTransport, ReadDemand
from channels.backends.shell import OpenConnection
from channels.exceptions import TransportDown
from channels.layers.contract import Leased


class Refused(Exception):
    """A driver's."""


class Connection(OpenConnection):
    name = "the broker"
    errors = (Refused,)
    answers = ()

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.is_closed = self.is_abandoned = False

    async def _close(self) -> None:
        self.is_closed = True

    def abandon(self) -> None:
        self.is_abandoned = True


class Reader:
    """Notes what is demanded."""

    def __init__(self) -> None:
        self.served: list[ReadDemand] = []
        self.is_shut = False

    def serve(self, demand: ReadDemand) -> None:
        self.served.append(demand)

    def shut(self) -> None:
        self.is_shut = True

    async def acknowledge(self, token: bytes) -> bool:
        return token == b"known"

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        raise Refused("the connection broke")

    async def extend(self, token: bytes, seconds: float) -> bool:
        raise NotImplementedError

    async def count(self, queue: str) -> int:
        raise NotImplementedError


class Events:
    """What the node is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.changed = asyncio.Event()

    def note(self, what: Any) -> None:
        self.told.append(what)
        self.changed.set()

    def on_up(self, kept: bool) -> None:
        self.note(f"up, kept={kept}")

    def on_down(self, error: BaseException | None) -> None:
        self.note(str(error))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.changed.clear()
                await self.changed.wait()


class Transport(DriverTransport[str, Connection, Reader]):
    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(Connection, addresses)
        self.connections: list[Connection] = []
        self.readers: list[Reader] = []
        self.left = 0

    def _forget(self) -> None:
        """Nothing is kept."""

    async def _connect(self, address: str) -> Connection:
        if address == "nowhere":
            raise Refused("nobody is there")
        self.connections.append(Connection(address))
        return self.connections[-1]

    async def _prepare(self, connection: Connection) -> tuple[Reader, bool]:
        self.readers.append(Reader())
        return self.readers[-1], len(self.readers) > 1

    async def _leave(self, connection: Connection, reader: Reader) -> None:
        self.left += 1


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport(["one", "nowhere", "two"])
    yield made
    await made.stop()


async def started(transport: Transport) -> Events:
    events = Events()
    await transport.start("node", events)  # type: ignore[arg-type]
    await events.until(1)
    return events


async def test_the_next_connection_is_to_the_next_address_that_can_be_reached(
    transport: Transport,
) -> None:
    events = await started(transport)
    transport.connections[0].fail("no heartbeat")
    await events.until(4)
    down = "the broker: no heartbeat"
    assert events.told == ["up, kept=False", down, "nobody is there", "up, kept=True"]
    assert [made.address for made in transport.connections] == ["one", "two"]
    assert transport.connections[0].is_closed
    assert transport.readers[0].is_shut
    assert transport.statistics() == {"disconnected": 1}


async def test_what_is_demanded_and_has_not_come_is_demanded_over_the_next_connection(
    transport: Transport,
) -> None:
    events, taken = await started(transport), list[Leased]()
    for queue in ("work", "met", "withdrawn"):
        transport.demand(queue, 2, 5.0, taken.append)
    transport.demand("withdrawn", 0, 5.0, taken.append)
    work, met, *_ = transport.readers[0].served
    for demand, token in ((work, b"1"), (met, b"2"), (met, b"3")):
        demand.take(b"x", token, 1)
    assert taken[0] == Leased("work", b"x", b"1", 1)
    transport.connections[0].fail("no heartbeat")
    await events.until(4)
    (demand,) = transport.readers[1].served
    assert (demand.queue, demand.count, demand.seconds) == ("work", 1, 5.0)


async def test_an_end_of_a_lease_is_the_readers_and_breaks_with_its_connection(
    transport: Transport,
) -> None:
    with pytest.raises(TransportDown, match="the broker is not connected"):
        await transport.acknowledge("work", b"known")
    await started(transport)
    assert await transport.acknowledge("work", b"known")
    assert not await transport.acknowledge("work", b"other")
    with pytest.raises(TransportDown, match="the connection broke"):
        await transport.release("work", b"known", 0.0, counted=True)
    with pytest.raises(TransportDown, match="is not connected"):
        await transport.acknowledge("work", b"known")


async def test_a_transport_that_stops_says_so_and_one_that_is_abandoned_does_not(
    transport: Transport,
) -> None:
    await started(transport)
    await transport.stop()
    assert transport.left == 1
    assert transport.connections[0].is_closed
    assert transport.statistics() == {}
    # At the next address nobody is.
    await (await started(transport)).until(2)
    transport.abandon()
    assert transport.connections[1].is_abandoned
    await transport.stop()
    assert transport.left == 1
