"""Demand turned into pulls: one at a time, ended with the demand, resumed after an outage."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from channels.exceptions import TransportDown
from channels.layers.pulling import Puller
from channels.layers.transport import TransportEvents
from channels.testing.layers.base import until


class Source:
    """A queue to pull from; counts who pulls."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[bytes] = asyncio.Queue()
        self.is_up = True
        self.pulling = 0
        self.pulled: list[bytes] = []

    async def pull(self, queue: str, limit: int) -> Sequence[bytes]:
        if not self.is_up:
            raise TransportDown
        self.pulling += 1
        try:
            return [await self.items.get()]
        finally:
            self.pulling -= 1

    def on_pulled(self, queue: str, data: Any) -> None:
        self.pulled.append(data)


def make() -> tuple[Source, Puller]:
    source = Source()
    puller = Puller(source.pull)
    puller.start(cast(TransportEvents, source))
    return source, puller


async def test_as_many_as_demanded_and_no_more() -> None:
    source, puller = make()
    for item in (b"1", b"2", b"3"):
        source.items.put_nowait(item)
    puller.demand("queue", 2)
    await until(lambda: source.pulled == [b"1", b"2"], "two")
    await asyncio.sleep(0)
    assert source.pulling == 0
    puller.demand("queue", 1)
    await until(lambda: len(source.pulled) == 3, "the third")
    await puller.close()


async def test_demand_may_grow_and_end_while_pulling() -> None:
    source, puller = make()
    puller.demand("queue", 1)
    puller.demand("queue", 3)
    await until(lambda: source.pulling == 1, "the pull")
    puller.demand("queue", 0)
    await until(lambda: source.pulling == 0, "its end")
    source.items.put_nowait(b"1")
    await asyncio.sleep(0.01)
    assert source.pulled == []
    await puller.close()


async def test_an_outage_keeps_the_demand() -> None:
    source, puller = make()
    source.is_up = False
    puller.demand("queue", 1)
    await asyncio.sleep(0.01)
    source.is_up = True
    source.items.put_nowait(b"1")
    puller.resume()
    await until(lambda: source.pulled == [b"1"], "the message")
    await puller.close()


async def test_after_abandoning_it_starts_anew() -> None:
    source, puller = make()
    puller.demand("queue", 1)
    await asyncio.sleep(0)
    await puller.close()
    puller.abandon()
    puller.start(cast(TransportEvents, source))
    puller.demand("queue", 1)
    source.items.put_nowait(b"1")
    await until(lambda: source.pulled == [b"1"], "the message")
    await puller.close()
