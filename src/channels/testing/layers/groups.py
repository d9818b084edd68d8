"""Groups: membership from anywhere, order, full members, expiry, flush."""

from __future__ import annotations

import asyncio

import pytest

from channels.testing.layers.base import (
    ConformanceBase,
    MakeLayer,
    nothing_comes,
    receive_all,
    soon,
    until,
)


class GroupCases(ConformanceBase):
    """Groups."""

    async def test_members_in_all_processes_get_it_once(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        members = [(layer, await layer.new_channel()) for layer in (first, second, first, second)]
        for layer, channel in members:
            await layer.group_add("room", channel)
            await layer.group_add("room", channel)
        outsider = await first.new_channel()
        for sender in (first, second):
            await sender.group_send("room", {"type": "hello"})
        await first.send(outsider, {"type": "only"})
        for layer, channel in members:
            assert await receive_all(layer, channel, 2) == [{"type": "hello"}] * 2
        assert await soon(first.receive(outsider)) == {"type": "only"}
        for layer, channel in members:
            await nothing_comes(layer, channel, 0.05)

    async def test_who_has_left_gets_nothing(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        stays, leaves = await second.new_channel(), await second.new_channel()
        for channel in (stays, leaves):
            await second.group_add("room", channel)
        await second.group_discard("room", leaves)
        await first.group_send("room", {"type": "x"})
        assert await soon(second.receive(stays)) == {"type": "x"}
        await nothing_comes(second, leaves, 0.1)

    async def test_who_comes_back_gets_it_again(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        for number in range(20):
            await second.group_add("room", channel)
            await first.group_send("room", {"type": "x", "number": number})
            assert (await soon(second.receive(channel)))["number"] == number
            await second.group_discard("room", channel)

    async def test_discarding_who_is_no_member_does_nothing(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        channel = await layer.new_channel()
        await layer.group_discard("room", channel)
        await layer.group_add("room", channel)
        await layer.group_discard("other", channel)
        await layer.group_send("room", {"type": "x"})
        assert await soon(layer.receive(channel)) == {"type": "x"}

    async def test_discarding_another_processs_channel_that_is_no_member_does_nothing(
        self, make_layer: MakeLayer
    ) -> None:
        first, second = await self.make_two(make_layer)
        channels = [await second.new_channel()]
        if self.features.queues and self.features.queue_members:
            channels += ["worker", "tgp!reply"]
        for channel in channels:
            await first.group_discard("room", channel)
            await first.group_add("room", channel)
            await first.group_send("room", {"type": "x"})
            assert await soon(second.receive(channel)) == {"type": "x"}
            await first.group_discard("room", channel)

    async def test_a_group_without_members_takes_messages(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        await layer.group_send("nobody", {"type": "x"})

    async def test_a_member_of_many_groups(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        groups = [f"room-{index}" for index in range(50)]
        for group in groups:
            await second.group_add(group, channel)
        for group in groups:
            await first.group_send(group, {"type": group})
        got = [message["type"] for message in await receive_all(second, channel, 50)]
        assert got == groups

    async def test_many_join_at_once(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channels = [await second.new_channel() for _ in range(100)]
        await asyncio.gather(
            *(second.group_add(f"room-{index % 20}", each) for index, each in enumerate(channels))
        )
        for index in range(20):
            await first.group_send(f"room-{index}", {"type": "x", "room": index})
        for index, channel in enumerate(channels):
            assert (await soon(second.receive(channel)))["room"] == index % 20

    async def test_a_channel_of_another_process_may_be_added(self, make_layer: MakeLayer) -> None:
        self.need("queue_members")
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        await first.group_add("room", channel)
        await first.group_send("room", {"type": "one"})
        assert await soon(second.receive(channel)) == {"type": "one"}
        await first.group_discard("room", channel)
        await first.group_send("room", {"type": "two"})
        await nothing_comes(second, channel, 0.2)

    @pytest.mark.parametrize("channel", ["worker", "tgp!reply"])
    async def test_a_channel_that_nobody_owns_may_be_added(
        self, make_layer: MakeLayer, channel: str
    ) -> None:
        self.need("queues", "queue_members")
        first, second = await self.make_two(make_layer)
        await first.group_add("room", channel)
        await first.group_add("room", channel)
        await second.group_send("room", {"type": "one"})
        assert await soon(second.receive(channel)) == {"type": "one"}
        await second.group_discard("room", channel)
        await first.group_send("room", {"type": "two"})
        await nothing_comes(first, channel, 0.2)

    async def test_a_send_and_a_group_send_of_one_process_keep_their_order(
        self, make_layer: MakeLayer
    ) -> None:
        first, second = await self.make_two(make_layer)
        for sender in (first, second):
            channel = await second.new_channel()
            await second.group_add("room", channel)
            for number in range(0, 60, 3):
                await sender.group_send("room", {"type": "x", "number": number})
                await sender.send(channel, {"type": "x", "number": number + 1})
                await sender.group_send("room", {"type": "x", "number": number + 2})
            got = [message["number"] for message in await receive_all(second, channel, 60)]
            assert got == list(range(60))
            await second.group_discard("room", channel)

    async def test_all_see_the_messages_of_many_senders_in_one_order(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("ordered_groups")
        first, second = await self.make_two(make_layer)
        members = [(layer, await layer.new_channel()) for layer in (first, second)]
        for layer, channel in members:
            await layer.group_add("room", channel)

        async def send(layer: object, name: str) -> None:
            for number in range(40):
                await layer.group_send("room", {"type": "x", "number": f"{name}{number}"})  # type: ignore[attr-defined]

        await asyncio.gather(send(first, "a"), send(second, "b"))
        seen = [
            [message["number"] for message in await receive_all(layer, channel, 80)]
            for layer, channel in members
        ]
        assert seen[0] == seen[1]
        for name in "ab":
            mine = [number for number in seen[0] if number.startswith(name)]
            assert mine == [f"{name}{number}" for number in range(40)]

    async def test_a_full_member_is_passed_over_and_said(
        self, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = await make_layer(capacity=2)
        full, free = await layer.new_channel(), await layer.new_channel()
        for channel in (full, free):
            await layer.group_add("room", channel)
        with caplog.at_level("INFO"):
            for number in range(3):
                await layer.group_send("room", {"type": "x", "number": number})
                assert (await soon(layer.receive(free)))["number"] == number
        got = [message["number"] for message in await receive_all(layer, full, 2)]
        assert got == [0, 1]
        await nothing_comes(layer, full, 0.1)
        if self.features.over_capacity_log:
            lines = [record.getMessage() for record in caplog.records]
            assert "1 of 2 channels over capacity in group room" in lines

    async def test_a_full_queue_in_a_group_is_passed_over_and_nothing_is_raised(
        self, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.need("queues", "queue_members", "exact_capacity")
        first, second = await self.make_two(make_layer, capacity=2)
        for channel in ("full", "free"):
            await second.group_add("room", channel)
        with caplog.at_level("INFO"):
            for number in range(4):
                await first.group_send("room", {"type": "x", "number": number})
                assert (await soon(second.receive("free")))["number"] == number
            # Who counts may be another process than the sender, and hear of it later.
            if self.features.over_capacity_log:
                line = "1 of 2 channels over capacity in group room"
                await until(lambda: line in caplog.messages, "the line")
        got = [message["number"] for message in await receive_all(first, "full", 2)]
        assert got == [0, 1]
        await nothing_comes(second, "full", 0.1)
        if self.features.node:
            # One and the same where the layer does not span processes.
            layers = {first, second}

            def dropped() -> int:
                return sum(layer.statistics().get("dropped_full_queue", 0) for layer in layers)

            await until(lambda: dropped() == 2, "the count of what was dropped")

    async def test_what_was_sent_to_a_group_expires(self, make_layer: MakeLayer) -> None:
        self.need("expiry")
        first, second = await self.make_two(make_layer, expiry=1.0)
        channels = [await second.new_channel()]
        if self.features.queues and self.features.queue_members:
            channels.append("worker")
        for channel in channels:
            await second.group_add("room", channel)
        await first.group_send("room", {"type": "old"})
        await asyncio.sleep(1.2 + self.features.expiry_slack)
        # Who let messages expire unread may be out of its groups: it is taken for dead.
        for channel in channels:
            await second.group_add("room", channel)
        await first.group_send("room", {"type": "young"})
        for channel in channels:
            assert await soon(second.receive(channel)) == {"type": "young"}

    async def test_a_channel_that_is_read_stays_a_member_if_refreshed(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("group_expiry")
        first, second = await self.make_two(make_layer, group_expiry=1.0)
        refreshed, forgotten = await second.new_channel(), await second.new_channel()
        for channel in (refreshed, forgotten):
            await second.group_add("room", channel)
        for _ in range(3):
            await asyncio.sleep(0.5)
            await second.group_add("room", refreshed)
        await first.group_send("room", {"type": "x"})
        assert await soon(second.receive(refreshed)) == {"type": "x"}
        await nothing_comes(second, forgotten, 0.1)

    async def test_membership_expires_unless_refreshed(self, make_layer: MakeLayer) -> None:
        self.need("group_expiry", "queues", "queue_members")
        layer = await make_layer(group_expiry=1.0)
        for channel in ("refreshed", "forgotten"):
            await layer.group_add("room", channel)
        await asyncio.sleep(0.7)
        await layer.group_add("room", "refreshed")
        await asyncio.sleep(0.6)
        await layer.group_send("room", {"type": "x"})
        assert await soon(layer.receive("refreshed")) == {"type": "x"}
        await nothing_comes(layer, "forgotten", 0.1)

    async def test_flush_forgets_everything_in_all_processes(self, make_layer: MakeLayer) -> None:
        self.need("flush")
        first, second = await self.make_two(make_layer)
        own = await second.new_channel()
        channels = [own]
        if self.features.queues:
            channels.append("worker")
            await first.send("worker", {"type": "x"})
        await first.send(own, {"type": "x"})
        for channel in channels if self.features.queue_members else [own]:
            await second.group_add("room", channel)
        await first.group_send("room", {"type": "x"})
        await first.flush()
        # Sent after the flush by the same process, so whoever has this one has been flushed.  Not
        # by a group: a membership that is new when the flush arrives would be flushed, too.
        mark = await second.new_channel()
        await first.send(mark, {"type": "mark"})
        assert await soon(second.receive(mark)) == {"type": "mark"}
        await first.group_send("room", {"type": "x"})
        for channel in channels:
            await nothing_comes(second, channel, 0.2)
        await second.group_add("room", own)
        await first.group_send("room", {"type": "again"})
        assert await soon(second.receive(own)) == {"type": "again"}
