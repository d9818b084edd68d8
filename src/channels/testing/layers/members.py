"""Attached consumers: mailboxes, and sinks that take ready frames."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.exceptions import ChannelFull
from channels.fanout.delivery import Member
from channels.fanout.prepared import PLAIN
from channels.kit.mailbox import Mailbox, MailboxBounds
from channels.testing.layers.base import ConformanceBase, MakeLayer, receive_all, soon, until
from channels.wire.frames import BINARY, TEXT, server_frame


class RecordingSink:
    """A sink that keeps what it was given."""

    def __init__(self) -> None:
        self.form: str | None = PLAIN
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)


class BrokenSink(RecordingSink):
    """One whose connection fails."""

    def write(self, frame: bytes) -> None:
        raise ConnectionResetError(f"gone, with {len(frame)} bytes unsent")


async def attach(
    layer: Any, *, sink: RecordingSink | None = None, bounds: MailboxBounds | None = None
) -> tuple[str, Mailbox]:
    """A consumer without a handler: (channel, mailbox)."""
    mailbox = Mailbox() if bounds is None else Mailbox(bounds)
    channel = await layer.new_channel()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop(), sink))
    return channel, mailbox


class MemberCases(ConformanceBase):
    """What a consumer relies on that is attached to the layer."""

    async def test_an_attached_consumer_gets_sends_and_group_sends(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer)
        channel, mailbox = await attach(second)
        await second.group_add("room", channel)
        await first.send(channel, {"type": "one"})
        await first.group_send("room", {"type": "two", "text": "hello"})
        assert await soon(mailbox.get_layer()) == {"type": "one"}
        assert await soon(mailbox.get_layer()) == {"type": "two", "text": "hello"}
        second.detach(channel)

    async def test_outbound_events_go_to_the_sinks_as_frames(self, make_layer: MakeLayer) -> None:
        self.need("node", "carries_bytes")
        first, second = await self.make_two(make_layer)
        sinks = [RecordingSink() for _ in range(3)]
        mailboxes = []
        for sink in sinks:
            channel, mailbox = await attach(second, sink=sink)
            mailboxes.append(mailbox)
            await second.group_add("room", channel)
        await first.group_send("room", {"type": "websocket.send", "text": "grüße"})
        await first.group_send("room", {"type": "websocket.send", "bytes": b"\x00\xff"})
        expected = [
            server_frame(TEXT, "grüße".encode()),
            server_frame(BINARY, b"\x00\xff"),
        ]
        await until(lambda: all(len(sink.frames) == 2 for sink in sinks), "frames")
        assert all(sink.frames == expected for sink in sinks)
        assert all(mailbox.layer_size == 0 for mailbox in mailboxes)

    async def test_a_frame_does_not_overtake_an_event_that_waits(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        layer = await make_layer()
        sink = RecordingSink()
        channel, mailbox = await attach(layer, sink=sink)
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "handled"})
        await layer.group_send("room", {"type": "websocket.send", "text": "after"})
        # The first has not been taken when the second comes.
        await until(lambda: mailbox.layer_size == 2, "both messages in the mailbox")
        assert await soon(mailbox.get_layer()) == {"type": "handled"}
        event = await soon(mailbox.get_layer())
        assert event == {"type": "websocket.send", "text": "after"}
        assert sink.frames == []

    async def test_a_sink_that_takes_no_frames_leaves_them_to_the_consumer(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        layer = await make_layer()
        sink = RecordingSink()
        sink.form = None
        channel, mailbox = await attach(layer, sink=sink)
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "websocket.send", "text": "early"})
        assert (await soon(mailbox.get_layer()))["text"] == "early"

    async def test_one_broken_member_does_not_touch_the_others(
        self, make_layer: MakeLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.need("node")
        layer = await make_layer()
        good = RecordingSink()
        for sink in (BrokenSink(), good, BrokenSink()):
            channel, _ = await attach(layer, sink=sink)
            await layer.group_add("room", channel)
        for _ in range(2):
            await layer.group_send("room", {"type": "websocket.send", "text": "x"})
        await until(lambda: len(good.frames) == 2, "frames of the good member")
        assert layer.statistics()["dropped_failed"] == 4
        assert "could not be reached" in caplog.text

    async def test_a_full_consumer_is_told_of_by_send_and_counted_by_group_send(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        layer = await make_layer()
        channel, mailbox = await attach(layer, bounds=MailboxBounds(capacity=2))
        await layer.group_add("room", channel)
        await layer.send(channel, {"type": "one"})
        await layer.send(channel, {"type": "two"})
        with pytest.raises(ChannelFull):
            await layer.send(channel, {"type": "three"})
        await layer.group_send("room", {"type": "four"})
        await until(lambda: layer.statistics()["dropped_full"] == 2, "the count")
        assert mailbox.layer_size == 2

    async def test_capacity_messages_of_100_kb_wait_for_a_busy_consumer(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer, capacity=50)
        channel, mailbox = await attach(second)
        await second.group_add("room", channel)
        for number in range(25):
            await first.send(channel, {"type": "sent", "number": number, "text": "x" * 100_000})
        await until(lambda: mailbox.layer_size == 25, "what was sent to the channel")
        for number in range(25):
            message = {"type": "group", "number": number, "text": "x" * 100_000}
            await first.group_send("room", message)
        await until(lambda: mailbox.layer_size == 50, "what was sent to the group")
        got = [await soon(mailbox.get_layer()) for _ in range(50)]
        assert [event["number"] for event in got] == [*range(25)] * 2

    async def test_four_of_the_largest_messages_wait_for_a_busy_consumer(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer, capacity=4, max_message_bytes=900_000)
        attached, mailbox = await attach(second)
        received = await second.new_channel()
        largest = {"type": "large", "text": "x" * 899_000}
        for channel in (attached, received):
            for _ in range(4):
                await first.send(channel, largest)
        await until(lambda: mailbox.layer_size == 4, "the largest messages")
        assert await receive_all(second, received, 4) == [largest] * 4

    async def test_bytes_of_unread_messages_are_bounded_by_capacity_bytes(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        layer = await make_layer(capacity_bytes=2500)
        attached, _ = await attach(layer)
        for channel in (attached, await layer.new_channel()):
            for _ in range(2):
                await layer.send(channel, {"type": "x", "text": "x" * 1000})
            with pytest.raises(ChannelFull, match="capacity_bytes"):
                await layer.send(channel, {"type": "x", "text": "x" * 1000})

    async def test_a_consumer_that_does_not_read_holds_up_nobody(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        layer = await make_layer()
        lazy, _ = await attach(layer)
        busy, mailbox = await attach(layer)
        for channel in (lazy, busy):
            await layer.group_add("room", channel)
        for number in range(300):
            await layer.group_send("room", {"type": "x", "number": number})
            assert (await soon(mailbox.get_layer()))["number"] == number

    async def test_a_detached_consumer_has_left_its_groups(self, make_layer: MakeLayer) -> None:
        self.need("node")
        layer = await make_layer()
        channel, mailbox = await attach(layer)
        other, other_mailbox = await attach(layer)
        for each in (channel, other):
            await layer.group_add("room", each)
        layer.detach(channel)
        await layer.group_send("room", {"type": "x"})
        assert await soon(other_mailbox.get_layer()) == {"type": "x"}
        assert mailbox.layer_size == 0

    async def test_large_groups_are_served_whole_and_in_order(self, make_layer: MakeLayer) -> None:
        self.need("node")
        layer = await make_layer()
        mailboxes = []
        for _ in range(2500):
            channel, mailbox = await attach(layer)
            layer.node.local.add("crowd", channel)
            mailboxes.append(mailbox)
        # The last goes through the front door, so that the group is joined.
        await layer.group_add("crowd", channel)
        for number in range(5):
            await layer.group_send("crowd", {"type": "x", "number": number})
        await layer.send(channel, {"type": "last"})
        for box in mailboxes:
            got = [(await soon(box.get_layer()))["number"] for _ in range(5)]
            assert got == [0, 1, 2, 3, 4]
        assert await soon(mailboxes[-1].get_layer()) == {"type": "last"}
