"""Connections that break, hang and lie, between a layer and its backend's server.

A class that defines the fixture `broker` gets these cases: each runs its layers through a
`ChaosProxy`.  What they count is what a user would miss: messages lost, doubled or out of order,
errors where there should be none, sockets, lines of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync

from channels.exceptions import ChannelLayerUnavailable
from channels.testing.layers.base import Broker, ConformanceBase, soon, until
from channels.testing.proxy import ChaosProxy

#: Seconds between two cuts, at least.
_CUT_SECONDS = 0.1
_CUTS = 8
#: Messages of a case, at most: a machine that is slow to reconnect sends on meanwhile.
_MOST = 20_000
#: A broker that was away may take a while to let everyone in again.
_PATIENCE = 30.0


class Chaos:
    """A broker, a proxy before it, and layers on either side."""

    def __init__(self, broker: Broker, proxy: ChaosProxy) -> None:
        self.broker = broker
        self.proxy = proxy
        self.made: list[Any] = []

    def make(self, **config: Any) -> Any:
        """A layer that reaches the broker through the proxy."""
        return self._make(self.proxy.address, config)

    def make_direct(self, **config: Any) -> Any:
        """One that does not."""
        return self._make(self.broker.address, config)

    def _make(self, address: Any, config: dict[str, Any]) -> Any:
        layer = self.broker.make(address, **{"capacity": _MOST, "send_timeout": 20.0, **config})
        self.made.append(layer)
        return layer

    @contextlib.asynccontextmanager
    async def cutting(self, *layers: Any) -> AsyncIterator[Callable[[], bool]]:
        """End all connections again and again, once these layers have one; says when to stop."""
        cuts = 0

        async def cut() -> None:
            nonlocal cuts
            while True:
                await asyncio.sleep(_CUT_SECONDS)
                await until(lambda: all(map(is_connected, layers)), "connections", _PATIENCE)
                self.proxy.cut()
                cuts += 1

        task = asyncio.create_task(cut())
        try:
            yield lambda: cuts >= _CUTS
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


def is_connected(layer: Any) -> bool:
    return bool(layer.statistics()["connected"])


async def send_until(
    is_enough: Callable[[], bool], send: Callable[[int], Any], count: int = 0
) -> int:
    """Send numbered messages until it is enough; how many there were."""
    while count < _MOST and not is_enough():
        await send(count)
        count += 1
        if count % 5 == 0:
            await asyncio.sleep(0.005)
    return count


@contextlib.asynccontextmanager
async def reading(layer: Any, channel: str, into: list[Any]) -> AsyncIterator[None]:
    """Collect a channel's messages; an error of `receive` is an error of the case."""

    async def read() -> None:
        while True:
            into.append(await layer.receive(channel))

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), f"a reader failed: {task.exception()!r}"


async def stands_still(lists: list[list[Any]], seconds: float = 0.5) -> None:
    """Wait until nothing more has come for so long."""
    loop = asyncio.get_running_loop()
    found, since, end = -1, loop.time(), loop.time() + _PATIENCE
    while loop.time() < min(end, since + seconds):
        if (now := sum(map(len, lists))) != found:
            found, since = now, loop.time()
        await asyncio.sleep(0.02)


class ChaosCases(ConformanceBase):
    """What a layer bears that reaches its backend over a network."""

    @pytest_asyncio.fixture
    async def chaos(self, broker: Broker | None) -> AsyncIterator[Chaos]:
        self.need("node")
        if broker is None:
            pytest.skip("the layer has no server to be cut off from: no fixture `broker`")
        async with ChaosProxy(broker.address) as proxy:
            chaos = Chaos(broker, proxy)
            yield chaos
            proxy.heal()
            await proxy.accept()
            for layer in chaos.made:
                await layer.close()

    async def test_connections_cut_all_the_time_lose_nothing_of_a_group(self, chaos: Chaos) -> None:
        self.need("reconnect_window")
        layers = [chaos.make(), chaos.make()]
        got: list[list[Any]] = [[], []]
        async with contextlib.AsyncExitStack() as stack:
            for layer, into in zip(layers, got, strict=True):
                channel = await layer.new_channel()
                await layer.group_add("room", channel)
                await stack.enter_async_context(reading(layer, channel, into))
            async with chaos.cutting(*layers) as is_enough:
                counts = await asyncio.gather(
                    *(send_until(is_enough, group_sender(layer)) for layer in layers)
                )
            await until(lambda: min(map(len, got)) >= sum(counts), "all messages", _PATIENCE)
            await stands_still(got, 0.2)
        for messages in got:
            for layer, count in zip(layers, counts, strict=True):
                assert numbers_of(messages, layer) == list(range(count))
        assert all(layer.statistics()["given_up"] == 0 for layer in layers), "no send has failed"

    async def test_what_a_process_missed_that_was_cut_off_it_is_told(self, chaos: Chaos) -> None:
        sender, away = chaos.make_direct(), chaos.make()
        gaps: list[Any] = []
        away.add_gap_listener(gaps.append)
        got: list[Any] = []
        channel = await away.new_channel()
        await away.group_add("room", channel)
        async with reading(away, channel, got):
            async with chaos.cutting(away) as is_enough:
                count = await send_until(is_enough, group_sender(sender))
            await until(lambda: is_connected(away), "the connection", _PATIENCE)
            # Such as must all come may take their time; where some are lost, nobody knows how many.
            with contextlib.suppress(AssertionError):
                patience = _PATIENCE if self.features.reconnect_window else 2.0
                await until(lambda: len(got) >= count, "all messages", patience)
            await stands_still([got])
        numbers = numbers_of(got, sender)
        assert numbers == sorted(set(numbers)), "in order, and none twice"
        assert numbers == list(range(count)) or gaps

    async def test_connections_cut_all_the_time_double_nothing_of_a_queue(
        self, chaos: Chaos
    ) -> None:
        self.need("queues")
        sender, *workers = (chaos.make() for _ in range(3))
        got: list[list[Any]] = [[], []]
        async with contextlib.AsyncExitStack() as stack:
            for layer, into in zip(workers, got, strict=True):
                await stack.enter_async_context(reading(layer, "worker", into))
            async with chaos.cutting(sender, *workers) as is_enough:
                count = await send_until(is_enough, sender_to(sender, "worker"))
            if self.features.queue_window:
                await until(lambda: sum(map(len, got)) >= count, "all messages", _PATIENCE)
            await stands_still(got)
        numbers = sorted(number for each in got for number in numbers_of(each, sender))
        if self.features.queue_window:
            assert set(numbers) == set(range(count))
        if self.features.queue_once:
            assert len(set(numbers)) == len(numbers), "none twice"

    async def test_readers_cancelled_at_random_while_connections_are_cut_double_nothing(
        self, chaos: Chaos
    ) -> None:
        self.need("queues")
        sender, worker = chaos.make(), chaos.make()
        chance = random.Random(3)
        got: list[int] = []
        is_over = False

        async def take() -> None:
            got.append((await worker.receive("worker"))["number"])

        async def read() -> None:
            while not is_over:
                task = asyncio.create_task(take())
                await asyncio.wait([task], timeout=chance.random() * 0.01)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.exception() is None

        reader = asyncio.create_task(read())
        async with chaos.cutting(sender, worker) as is_enough:
            count = await send_until(is_enough, sender_to(sender, "worker"))
        is_over = True
        await reader
        rest: list[Any] = []
        async with reading(worker, "worker", rest):
            if self.features.queue_window:
                missing = count - len(got)
                await until(lambda: len(rest) >= missing, "all messages", _PATIENCE)
            await stands_still([rest])
        taken = sorted(got + numbers_of(rest, sender))
        if self.features.queue_once:
            assert taken == sorted(set(taken)), "none twice"
        if self.features.queue_window:
            lost = sorted(set(range(count)) - set(taken))
            assert not lost, f"{len(lost)} of {count} lost: {lost[:5]}"

    async def test_a_server_that_is_not_there_at_first(self, chaos: Chaos) -> None:
        chaos.proxy.refuse()
        layer = chaos.make(send_timeout=0.3)
        worker = asyncio.create_task(layer.receive("worker")) if self.features.queues else None
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for sending in (layer.group_send("room", {"type": "x"}), layer.send("any", {"type": "x"})):
            with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
                await sending
        assert worker is None or not worker.done()
        assert not is_connected(layer)
        await chaos.proxy.accept()
        await until(lambda: is_connected(layer), "the connection", _PATIENCE)
        layer.node.link.outbox.send_timeout = 20.0
        await layer.group_send("room", {"type": "y"})
        # A send that was given up may be carried out nevertheless.
        while (message := await soon(layer.receive(channel))) != {"type": "y"}:
            assert message == {"type": "x"}
        if worker is not None:
            await layer.send("worker", {"type": "z"})
            assert await soon(worker) == {"type": "z"}

    async def test_down_and_up_is_said_once_and_counted_and_no_call_fails(
        self, chaos: Chaos, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = chaos.make()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        for outage in range(1, 4):
            chaos.proxy.refuse()
            chaos.proxy.cut()
            await until(lambda: not is_connected(layer), "the break", _PATIENCE)
            waiting = asyncio.gather(
                *(layer.group_send("room", {"type": "x", "number": each}) for each in range(5))
            )
            # Long enough for several vain attempts to connect.
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await chaos.proxy.accept()
            await until(lambda: is_connected(layer), "the connection", _PATIENCE)
            await asyncio.wait_for(waiting, _PATIENCE)
            got = [(await soon(layer.receive(channel)))["number"] for _ in range(5)]
            assert got == list(range(5))
            assert layer.statistics().get("disconnected") == outage
        lines = [each.getMessage() for each in caplog.records if each.name == "channels.layers"]
        assert sum("is out of reach" in line for line in lines) == 3, lines
        assert sum("is connected" in line for line in lines) == 3, lines
        assert not [each for each in caplog.records if each.exc_info], "nobody raised"

    @pytest.mark.parametrize("fault", ["swallow", "stall"])
    async def test_a_connection_that_is_silently_dead_is_found_out(
        self, chaos: Chaos, fault: str
    ) -> None:
        layer = chaos.make(**chaos.broker.quick)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "before"})
        assert await soon(layer.receive(channel)) == {"type": "before"}
        getattr(chaos.proxy, fault)()
        await until(lambda: layer.statistics().get("disconnected", 0), "the discovery", _PATIENCE)
        chaos.proxy.heal()
        chaos.proxy.cut()
        await until(lambda: is_connected(layer), "the connection", _PATIENCE)
        await layer.group_send("room", {"type": "after"})
        assert await soon(layer.receive(channel)) == {"type": "after"}

    async def test_a_process_whose_connection_hangs_delays_no_other(self, chaos: Chaos) -> None:
        hanging, here = chaos.make(), chaos.make_direct()
        channels = [await layer.new_channel() for layer in (hanging, here)]
        for layer, channel in zip((hanging, here), channels, strict=True):
            await layer.group_add("room", channel)
        chaos.proxy.stall()
        for number in range(200):
            await here.group_send("room", {"type": "x", "number": number})
            assert (await soon(here.receive(channels[1])))["number"] == number

    async def test_a_slow_network_keeps_the_order(self, chaos: Chaos) -> None:
        layer = chaos.make()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        chaos.proxy.delay = 0.05
        sends = []
        for number in range(0, 20, 2):
            sends.append(layer.group_send("room", {"type": "x", "number": number}))
            sends.append(layer.send(channel, {"type": "x", "number": number + 1}))
            await asyncio.gather(*sends[-2:])
        got = [(await soon(layer.receive(channel)))["number"] for _ in range(20)]
        assert got == list(range(20))

    async def test_hundreds_of_calls_from_threads_share_a_few_sockets(self, chaos: Chaos) -> None:
        layer = chaos.make()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        queue: list[Any] = []
        async with contextlib.AsyncExitStack() as stack:
            if self.features.queues:
                await stack.enter_async_context(reading(layer, "worker", queue))
            with ThreadPoolExecutor(8) as pool:
                loop, send = asyncio.get_running_loop(), async_to_sync(layer.group_send)
                await asyncio.gather(
                    *(
                        loop.run_in_executor(pool, send, "room", {"type": "x", "number": number})
                        for number in range(500)
                    )
                )
            got = {(await soon(layer.receive(channel)))["number"] for _ in range(500)}
            assert got == set(range(500))
            if self.features.queues:
                await layer.send("worker", {"type": "x"})
                await until(lambda: bool(queue), "the queue's message")
        assert len(chaos.proxy) <= self.features.most_sockets
        assert chaos.proxy.accepted <= self.features.most_sockets


def group_sender(layer: Any) -> Callable[[int], Any]:
    """Sends messages that name their sender."""
    return lambda number: layer.group_send("room", numbered(layer, number))


def sender_to(layer: Any, channel: str) -> Callable[[int], Any]:
    return lambda number: layer.send(channel, numbered(layer, number))


def numbered(layer: Any, number: int) -> dict[str, Any]:
    return {"type": "x", "sender": layer.node.id, "number": number}


def numbers_of(messages: list[Any], layer: Any) -> list[int]:
    """The numbers of a layer's messages, as they came."""
    return [each["number"] for each in messages if each["sender"] == layer.node.id]
