"""Loops, threads and processes: a layer belongs to the process, whoever calls it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels.fanout.delivery import Member
from channels.kit.mailbox import Mailbox
from channels.testing.layers.base import PATIENCE, ConformanceBase, MakeLayer, soon, until


async def in_another_loop(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on a loop of its own, made and closed in another thread."""
    return await asyncio.to_thread(lambda: asyncio.run(work()))


class LifeCases(ConformanceBase):
    """Who may call a layer, and from where."""

    async def test_two_loops_at_once(self, make_layer: MakeLayer) -> None:
        self.need("any_loop")
        layer = await make_layer()
        here = await layer.new_channel()
        await layer.group_add("room", here)

        async def there() -> list[int]:
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            ready.set()
            got = [(await soon(layer.receive(channel)))["number"] for _ in range(20)]
            await layer.group_discard("room", channel)
            return got

        ready = threading.Event()
        other = asyncio.create_task(in_another_loop(there))
        await asyncio.to_thread(ready.wait, PATIENCE)
        for number in range(20):
            await layer.group_send("room", {"type": "x", "number": number})
        mine = [(await soon(layer.receive(here)))["number"] for _ in range(20)]
        assert mine == await soon(other) == list(range(20))

    async def test_a_consumer_of_another_loop_is_reached(self, make_layer: MakeLayer) -> None:
        self.need("any_loop", "node")
        layer = await make_layer()
        names: list[str] = []

        async def there() -> list[Any]:
            mailbox = Mailbox()
            channel = await layer.new_channel()
            layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
            await layer.group_add("room", channel)
            names.append(channel)
            try:
                return [await soon(mailbox.get_layer()) for _ in range(2)]
            finally:
                layer.detach(channel)

        other = asyncio.create_task(in_another_loop(there))
        await until(lambda: bool(names), "the consumer")
        await layer.send(names[0], {"type": "one"})
        await layer.group_send("room", {"type": "two"})
        assert await soon(other) == [{"type": "one"}, {"type": "two"}]

    async def test_hundreds_of_calls_through_async_to_sync(self, make_layer: MakeLayer) -> None:
        self.need("any_loop")
        layer = await make_layer(capacity=1000)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        with ThreadPoolExecutor(8) as pool:
            calls = [
                asyncio.get_running_loop().run_in_executor(
                    pool, async_to_sync(layer.group_send), "room", {"type": "x", "number": number}
                )
                for number in range(500)
            ]
            await asyncio.gather(*calls)
        got = [(await soon(layer.receive(channel)))["number"] for _ in range(500)]
        assert sorted(got) == list(range(500))

    async def test_loops_come_and_go(self, make_layer: MakeLayer) -> None:
        self.need("any_loop")
        layer = await make_layer()
        for number in range(5):

            async def there(number: int = number) -> Any:
                channel = await layer.new_channel()
                await layer.group_add("room", channel)
                await layer.group_send("room", {"type": "x", "number": number})
                message = await soon(layer.receive(channel))
                await layer.group_discard("room", channel)
                return message["number"]

            assert await in_another_loop(there) == number

    async def test_an_adopted_loop_is_closed_and_another_takes_over(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("any_loop", "node")
        layer = await make_layer()
        for number in range(3):

            async def there(number: int = number) -> Any:
                assert layer.adopt_loop() or layer.capabilities.is_direct
                mailbox = Mailbox()
                channel = await layer.new_channel()
                layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
                await layer.group_add("room", channel)
                await layer.group_send("room", {"type": "x", "number": number})
                # Ends without detaching, as when a server is stopped hard.
                return await soon(mailbox.get_layer())

            assert (await in_another_loop(there))["number"] == number
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "after"})
        assert await soon(layer.receive(channel)) == {"type": "after"}

    async def test_blocking_verbs(self, make_layer: MakeLayer) -> None:
        self.need("node")
        layer = await make_layer()

        def work() -> None:
            channel = layer.sync.new_channel()
            layer.sync.group_add("room", channel)
            layer.sync.group_send("room", {"type": "one"})
            assert layer.sync.receive(channel, timeout=PATIENCE) == {"type": "one"}
            layer.sync.broadcast("room", text="two")
            assert layer.sync.receive(channel, timeout=PATIENCE)["text"] == "two"
            layer.sync.group_discard("room", channel)
            layer.sync.send(channel, {"type": "three"})
            assert layer.sync.receive(channel, timeout=PATIENCE) == {"type": "three"}
            with pytest.raises(TimeoutError):
                layer.sync.receive(channel, timeout=0.05)

        await asyncio.to_thread(work)
        with pytest.raises(RuntimeError, match="await the layer's own method"):
            layer.sync.send("channel", {"type": "x"})

    async def test_a_closed_layer_opens_again(self, make_layer: MakeLayer) -> None:
        self.need("node")
        layer = await make_layer()
        for number in range(3):
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.group_send("room", {"type": "x", "number": number})
            assert (await soon(layer.receive(channel)))["number"] == number
            await layer.close()

    async def test_statistics_count(self, make_layer: MakeLayer) -> None:
        self.need("node")
        layer = await make_layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send(channel, {"type": "x"})
        await layer.group_send("room", {"type": "x"})
        for _ in range(2):
            await soon(layer.receive(channel))
        counts = layer.statistics()
        assert (counts["sent"], counts["group_sent"], counts["delivered"]) == (1, 1, 2)

    async def test_a_forked_child_is_a_node_of_its_own(self, make_layer: MakeLayer) -> None:
        self.need("forks")
        layer = await make_layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "before"})
        assert await soon(layer.receive(channel)) == {"type": "before"}
        with warnings.catch_warnings():
            # Python 3.12 warns of every fork of a process with threads; this is one, on purpose.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(_use_in_child(layer))
        status = await asyncio.to_thread(_wait_for, child)
        assert status == 0, "the child could not use the layer"
        if self.features.spans_processes:
            assert await soon(layer.receive(channel)) == {"type": "child"}
        await layer.group_send("room", {"type": "after"})
        assert await soon(layer.receive(channel)) == {"type": "after"}


def _use_in_child(layer: Any) -> int:
    """0 if the layer works in this forked child.  Runs on a thread without the parent's loop."""
    outcome = [1]

    async def use() -> None:
        await layer.group_send("room", {"type": "child"})
        channel = await layer.new_channel()
        await layer.group_add("own", channel)
        await layer.group_send("own", {"type": "mine"})
        if await soon(layer.receive(channel)) == {"type": "mine"}:
            outcome[0] = 0
        await layer.close()

    thread = threading.Thread(target=lambda: asyncio.run(use()))
    thread.start()
    thread.join(PATIENCE)
    return outcome[0]


def _wait_for(child: int) -> int:
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1
