"""Channels: one reader each, order, capacity, expiry, cancelled readers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from itertools import pairwise
from typing import Any

import pytest

from channels.exceptions import ChannelFull
from channels.testing.layers.base import (
    PATIENCE,
    ConformanceBase,
    MakeLayer,
    nothing_comes,
    receive_all,
    soon,
    until,
)


class QueueCases(ConformanceBase):
    """Sending to channels and receiving from them."""

    async def test_a_channel_of_another_process_is_reached(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        mine, yours = await first.new_channel(), await second.new_channel()
        await first.send(yours, {"type": "to.you", "reply": mine})
        message = await soon(second.receive(yours))
        await second.send(message["reply"], {"type": "to.me"})
        assert await soon(first.receive(mine)) == {"type": "to.me"}

    async def test_messages_of_one_process_go_to_the_channel_they_name(
        self, make_layer: MakeLayer
    ) -> None:
        first, second = await self.make_two(make_layer)
        channels = [await second.new_channel() for _ in range(10)]
        for index, channel in enumerate(channels):
            await first.send(channel, {"type": "x", "index": index})
        for index, channel in reversed(list(enumerate(channels))):
            assert (await soon(second.receive(channel)))["index"] == index

    async def test_first_in_first_out(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channels = [await second.new_channel()] + (["worker"] if self.features.queues else [])
        for channel in channels:
            for number in range(50):
                await first.send(channel, {"type": "x", "number": number})
            got = [message["number"] for message in await receive_all(second, channel, 50)]
            assert got == list(range(50))

    async def test_a_channel_of_another_process_is_not_read_here(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("spans_processes")
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        if self.features.node:
            with pytest.raises(TypeError, match="another process"):
                await soon(first.receive(channel))
            return
        thief = asyncio.create_task(first.receive(channel))
        try:
            for number in range(10):
                await first.send(channel, {"type": "x", "number": number})
            got = [message["number"] for message in await receive_all(second, channel, 10)]
            assert got == list(range(10))
            assert not thief.done()
        finally:
            thief.cancel()
            await asyncio.wait([thief])

    async def test_messages_wait_for_a_reader(self, make_layer: MakeLayer) -> None:
        self.need("queues")
        first, second = await self.make_two(make_layer)
        await first.send("worker", {"type": "early"})
        assert await soon(second.receive("worker")) == {"type": "early"}
        reader = asyncio.create_task(second.receive("worker"))
        await asyncio.sleep(0)
        await first.send("worker", {"type": "late"})
        assert await soon(reader) == {"type": "late"}

    async def test_names_that_nobody_owns_may_have_a_local_part(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("queues")
        first, second = await self.make_two(make_layer)
        await first.send("tgp!one", {"type": "one"})
        await first.send("tgp!two", {"type": "two"})
        assert await soon(second.receive("tgp!two")) == {"type": "two"}
        assert await soon(second.receive("tgp!one")) == {"type": "one"}

    async def test_what_waits_in_a_queue_is_counted(self, make_layer: MakeLayer) -> None:
        self.need("queues", "node")
        first, second = await self.make_two(make_layer)
        assert await second.backlog("worker") == (0, None)
        for number in range(3):
            await first.send("worker", {"type": "x", "number": number})
        await first.send("other", {"type": "x"})
        waiting, oldest = await second.backlog("worker")
        assert (waiting, oldest is not None) == (3, self.features.queue_ages)
        if self.features.queue_ages:
            before = oldest
            while oldest < before + 0.1:
                _, oldest = await soon(second.backlog("worker"))
            assert oldest < PATIENCE
        assert (await soon(second.receive("worker")))["number"] == 0
        await soon(count_becomes(first, "worker", 2))
        with pytest.raises(TypeError):
            await first.backlog(await first.new_channel())

    async def test_what_is_on_lease_does_not_wait(self, make_layer: MakeLayer) -> None:
        self.need("queues", "node", "leases")
        layer = await make_layer(delivery={"worker": "at-least-once"})
        await layer.send("worker", {"type": "x"})
        assert await layer.backlog("worker") == (1, None)
        _, lease = await soon(layer.receive_leased("worker"))
        assert await layer.backlog("worker") == (0, None)
        await lease.give_back()
        if self.features.exact_attempts:
            # JetStream takes it for leased until it is delivered again.
            await soon(count_becomes(layer, "worker", 1))

    async def test_each_message_goes_to_one_of_many_readers(self, make_layer: MakeLayer) -> None:
        self.need("queues")
        sender = await make_layer(capacity=1000)
        layers = [
            await make_layer(capacity=1000) if self.features.spans_processes else sender
            for _ in range(3)
        ]
        got: list[int] = []

        async def work(layer: Any) -> None:
            while True:
                got.append((await layer.receive("worker"))["number"])

        workers = [asyncio.create_task(work(layer)) for layer in layers for _ in range(2)]
        for number in range(120):
            await sender.send("worker", {"type": "x", "number": number})
        await until(lambda: len(got) >= 120, "all messages taken")
        # Time for one that comes twice.
        await asyncio.sleep(0.1)
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        assert sorted(got) == list(range(120))

    async def test_full_at_one_over_capacity(self, make_layer: MakeLayer) -> None:
        self.need("exact_capacity")
        layer = await make_layer(capacity=3)
        channels = [await layer.new_channel()] + (["worker"] if self.features.queues else [])
        for channel in channels:
            for number in range(3):
                await layer.send(channel, {"type": "x", "number": number})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x", "number": 3})
            assert (await soon(layer.receive(channel)))["number"] == 0
            await layer.send(channel, {"type": "x", "number": 4})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x", "number": 5})
            got = [message["number"] for message in await receive_all(layer, channel, 3)]
            assert got == [1, 2, 4]

    async def test_capacity_by_pattern(self, make_layer: MakeLayer) -> None:
        self.need("exact_capacity", "queues")
        layer = await make_layer(capacity=2, channel_capacity={"small.*": 1, "*.large": 4})
        for channel, limit in (("small.a", 1), ("small.large", 1), ("a.large", 4), ("other", 2)):
            for _ in range(limit):
                await layer.send(channel, {"type": "x"})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x"})

    async def test_capacity_by_pattern_counts_for_names_with_a_local_part(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("exact_capacity")
        layer = await make_layer(capacity=3, channel_capacity={"small*": 1, "tgp!*": 2})
        limits = {await layer.new_channel("small"): 1, await layer.new_channel("large"): 3}
        if self.features.queues:
            limits |= {"tgp!one": 2, "tgp!two": 2, "tgq!one": 3}
        for channel, limit in limits.items():
            for _ in range(limit):
                await layer.send(channel, {"type": "x"})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"type": "x"})

    async def test_one_full_channel_does_not_fill_another(self, make_layer: MakeLayer) -> None:
        self.need("exact_capacity")
        layer = await make_layer(capacity=2)
        full, other = await layer.new_channel(), await layer.new_channel()
        for _ in range(2):
            await layer.send(full, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(full, {"type": "x"})
        await layer.send(other, {"type": "fine"})
        assert await soon(layer.receive(other)) == {"type": "fine"}

    async def test_unread_messages_expire(self, make_layer: MakeLayer) -> None:
        self.need("expiry")
        first, second = await self.make_two(make_layer, expiry=1.0)
        channels = [await second.new_channel()] + (["worker"] if self.features.queues else [])
        for channel in channels:
            await first.send(channel, {"type": "old"})
        await asyncio.sleep(1.2 + self.features.expiry_slack)
        for channel in channels:
            await first.send(channel, {"type": "young"})
            assert await soon(second.receive(channel)) == {"type": "young"}

    async def test_old_and_young_messages_in_one_channel(self, make_layer: MakeLayer) -> None:
        self.need("expiry")
        first, second = await self.make_two(make_layer, expiry=3.0)
        channels = [await second.new_channel()] + (["worker"] if self.features.queues else [])
        for channel in channels:
            for number in range(3):
                await first.send(channel, {"type": "old", "number": number})
        await asyncio.sleep(2.0)
        for channel in channels:
            for number in range(3):
                await first.send(channel, {"type": "young", "number": number})
        await asyncio.sleep(1.2 + self.features.expiry_slack)
        for channel in channels:
            expected = [{"type": "young", "number": number} for number in range(3)]
            assert await receive_all(second, channel, 3) == expected

    async def test_expired_messages_do_not_count_against_capacity(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("expiry", "exact_capacity")
        layer = await make_layer(expiry=1.0, capacity=2)
        channels = [await layer.new_channel()] + (["worker"] if self.features.queues else [])
        for channel in channels:
            await layer.send(channel, {"type": "old"})
            await layer.send(channel, {"type": "old"})
        await asyncio.sleep(1.2 + self.features.expiry_slack)
        for channel in channels:
            await layer.send(channel, {"type": "young"})
            assert await soon(layer.receive(channel)) == {"type": "young"}

    async def test_cancelled_readers_lose_and_double_nothing(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer, capacity=10_000)
        channels = [await second.new_channel()] + (["worker"] if self.features.queues else [])
        count, chance = self.cancelled_readers, random.Random(7)
        for channel in channels:
            got: list[int] = []

            async def read(channel: str = channel, got: list[int] = got) -> None:
                # Taken and noted without an await between: cancelled before it or after it.
                got.append((await second.receive(channel))["number"])

            for number in range(count):
                reader = asyncio.create_task(read())
                sender = asyncio.create_task(first.send(channel, {"type": "x", "number": number}))
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                reader.cancel()
                await sender
                with contextlib.suppress(asyncio.CancelledError):
                    await reader
            while len(got) < count:
                await soon(read())
            assert sorted(got) == list(range(count))
            await nothing_comes(second, channel)

    async def test_a_queue_whose_readers_are_cancelled_keeps_its_order(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("queues")
        first, second = await self.make_two(make_layer, capacity=10_000)
        count, chance = self.cancelled_readers, random.Random(11)
        got: list[int] = []

        async def read() -> None:
            got.append((await second.receive("worker"))["number"])

        async def send() -> None:
            for number in range(count):
                await first.send("worker", {"type": "x", "number": number})

        sending = asyncio.create_task(send())
        while len(got) < count:
            reader = asyncio.create_task(read())
            # Some are cancelled before they have asked, some while their message is on its way.
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                await asyncio.sleep(0.002)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            if len(got) < count and chance.random() < 0.3:
                await soon(read())
        await sending
        inverted = [pair for pair in pairwise(got) if pair[0] + 1 != pair[1]]
        assert not inverted, f"{len(got)} messages: {inverted[:9]}"


async def count_becomes(layer: Any, channel: str, count: int) -> None:
    waiting = -1
    while waiting != count:
        await asyncio.sleep(0.005)
        waiting, _ = await layer.backlog(channel)
