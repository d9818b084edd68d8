"""Publishers and readers in the test's own process, for any layer, with their logs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from tests.cluster.history import Mark, Outcome, PublisherLog
from tests.cluster.proxy import ChaosProxy
from tests.cluster.sites import Site

#: Seconds to wait for what must come.
PATIENCE = 15.0
#: Cuts of a case that breaks connections, at least.
CUTS = 8


class Reader:
    """Reads a channel of a layer, a new member of `group` if one is named, until the end."""

    def __init__(self, layer: Any, *, group: str | None = None, channel: str | None = None) -> None:
        self.marks: list[Mark] = []
        self._layer = layer
        self._group = group
        self._channel = channel
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        if self._channel is None:
            self._channel = await self._layer.new_channel()
        if self._group is not None:
            await self._layer.group_add(self._group, self._channel)
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        # An error of `receive` is an error of the test: no reader may fail.
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), f"a reader failed: {ended!r}"

    async def _read(self) -> None:
        while True:
            message = await self._layer.receive(self._channel)
            self.marks.append((message["publisher"], message["number"]))


async def publish(
    layer: Any,
    log: PublisherLog,
    count: int,
    *,
    group: str | None = None,
    channel: str | None = None,
    pause: Callable[[int], float] = lambda _: 0.0,
    enough: Callable[[], bool] = lambda: True,
) -> None:
    """Send numbered messages one after the other: so many, and then until it is enough.

    Args:
        pause: Seconds to wait before the message with this number.
    """
    for number in itertools.count():
        if number >= count and enough():
            return
        if seconds := pause(number):
            await asyncio.sleep(seconds)
        mark = log.begin()
        message = {"type": "x", "publisher": mark[0], "number": mark[1]}
        try:
            if group is not None:
                await layer.group_send(group, message)
            else:
                await layer.send(channel, message)
        except ChannelLayerUnavailable:
            log.end(mark, Outcome.UNKNOWN)
        except ChannelFull:
            log.end(mark, Outcome.REFUSED)
        else:
            log.end(mark)


def every(messages: int, seconds: float) -> Callable[[int], float]:
    """A pause of so many seconds after so many messages."""
    return lambda number: seconds if number and number % messages == 0 else 0.0


async def until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


async def quiet(readers: Sequence[Sequence[Mark]], seconds: float = 0.5) -> None:
    """Wait until nothing more has come for so long."""
    loop = asyncio.get_running_loop()
    deadline, last, since = loop.time() + PATIENCE, -1, loop.time()
    while loop.time() < deadline and loop.time() - since < seconds:
        found = sum(map(len, readers))
        if found != last:
            last, since = found, loop.time()
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def beside(*works: Any) -> AsyncIterator[None]:
    """Run these while the body runs; none of them may end before."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled(), f"it failed: {task.exception()!r}"


class Breaker:
    """Ends all connections again and again: the server's own way where it has one, else a proxy.

    Args:
        by_proxy: Always by the proxy.

    Attributes:
        port: Where layers must connect to suffer it.
        cuts: How often it was done.
    """

    def __init__(self, site: Site, proxy: ChaosProxy, *, by_proxy: bool = False) -> None:
        self.cuts = 0
        self._server = site.server
        self._proxy = proxy
        self._end = None if by_proxy else site.row.end_connections
        self.port = proxy.port if self._end is None else site.server.port

    @contextlib.asynccontextmanager
    async def cutting(self, *layers: Any) -> AsyncIterator[None]:
        """While the body runs, each time that these layers are connected."""
        async with beside(self._cut(layers)):
            yield

    def is_enough(self) -> bool:
        return self.cuts >= CUTS

    async def _cut(self, layers: Sequence[Any]) -> None:
        while True:
            await asyncio.sleep(0.1)
            await until(lambda: all(map(is_connected, layers)), "connections", 30)
            if self._end is None:
                self._proxy.cut()
            else:
                await asyncio.to_thread(self._end, self._server)
            self.cuts += 1


def is_connected(layer: Any) -> bool:
    return bool(layer.statistics()["connected"])


async def finish(layer: Any, done: Counter[int]) -> None:
    """Finish what comes to "jobs", by its number, until cancelled."""
    while True:
        message, lease = await layer.receive_leased("jobs")
        async with lease:
            await asyncio.sleep(0.001)
            done[message["number"]] += 1
