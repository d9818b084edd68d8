"""The in-memory layer as tests of applications look at it."""

import asyncio
import contextlib
import re
from typing import Any

import pytest

from channels.exceptions import ChannelFull
from channels.fanout.delivery import Member
from channels.kit.clock import ManualClock
from channels.kit.mailbox import Mailbox
from channels.layers import InMemoryChannelLayer

HELLO = {"type": "test.message", "text": "hello"}


def expiring(**options: Any) -> tuple[InMemoryChannelLayer, ManualClock]:
    clock = ManualClock()
    return InMemoryChannelLayer(clock=clock, **options), clock


async def receive_nothing(layer: InMemoryChannelLayer, channel: str) -> None:
    """Asserts that nothing is there; the reader is cancelled while it waits."""
    reader = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    assert not reader.done()
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader


async def test_a_drained_channel_is_no_key_any_more() -> None:
    layer = InMemoryChannelLayer()
    await layer.send("worker", HELLO)
    assert list(layer.channels) == ["worker"]
    assert layer.channels["worker"].qsize() == 1
    assert await layer.receive("worker") == HELLO
    assert len(layer.channels) == 0


def test_what_it_can_beyond_the_least() -> None:
    assert InMemoryChannelLayer().extensions == ["groups", "flush"]


async def test_a_waiting_reader_is_a_key_and_none_when_cancelled() -> None:
    layer = InMemoryChannelLayer()
    for channel in ("worker", await layer.new_channel()):
        reader = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        assert list(layer.channels) == [channel]
        assert layer.channels[channel].empty()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert len(layer.channels) == 0


async def test_no_key_is_left_when_a_send_meets_a_cancelled_reader() -> None:
    layer = InMemoryChannelLayer()
    for channel in ("worker", await layer.new_channel()):
        reader = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        await layer.send(channel, HELLO)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        assert await layer.receive(channel) == HELLO
        assert len(layer.channels) == 0


async def test_an_attached_consumer_is_a_key() -> None:
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    mailbox = Mailbox()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    assert next(iter(layer.channels)) == channel
    await layer.send(channel, HELLO)
    assert await mailbox.get_layer() == HELLO
    layer.detach(channel)
    assert len(layer.channels) == 0


async def test_names_of_new_channels() -> None:
    layer = InMemoryChannelLayer()
    assert re.fullmatch(r"specific\.\.inmemory![a-zA-Z]{12}", await layer.new_channel())
    assert re.fullmatch(r"mine\.inmemory![a-zA-Z]{12}", await layer.new_channel("mine"))
    assert await layer.new_channel() != await layer.new_channel()


async def test_groups_show_their_members_and_when_they_came() -> None:
    layer, clock = expiring()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", "worker")
    assert set(layer.groups["room"]) == {channel, "worker"}
    assert layer.groups["room"][channel] == layer.groups["room"]["worker"] == clock.time()
    await layer.group_discard("room", channel)
    await layer.group_discard("room", "worker")
    assert len(layer.groups) == 0


async def test_channel_full_at_one_over_capacity_for_each_channel_by_itself() -> None:
    layer = InMemoryChannelLayer(capacity=3, channel_capacity={"small.*": 1})
    for _ in range(3):
        await layer.send("worker", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("worker", HELLO)
    await layer.send("small.one", HELLO)
    with pytest.raises(ChannelFull):
        await layer.send("small.one", HELLO)
    await layer.send("other", HELLO)


@pytest.mark.parametrize("own", [False, True])
async def test_expired_messages_go_and_their_channels_with_them(own: bool) -> None:
    layer, clock = expiring(expiry=10)
    first = await layer.new_channel() if own else "first"
    await layer.send(first, HELLO)
    await layer.send(first, HELLO)
    clock.advance(10.1)
    await layer.send("second", HELLO)
    # Lazily: seen to when something is received.
    assert len(layer.channels) == 2
    assert await layer.receive("second") == HELLO
    assert len(layer.channels) == 0
    await receive_nothing(layer, first)


async def test_of_several_messages_only_the_expired_ones_go() -> None:
    layer, clock = expiring(expiry=10)
    await layer.send("worker", {"type": "old"})
    clock.advance(6)
    await layer.send("worker", {"type": "young"})
    clock.advance(6)
    assert (await layer.receive("worker"))["type"] == "young"
    assert len(layer.channels) == 0


async def test_a_channel_whose_messages_expired_unread_leaves_its_groups() -> None:
    layer, clock = expiring(expiry=10)
    channel = await layer.new_channel()
    for name in (channel, "worker"):
        await layer.group_add("room", name)
    await layer.group_send("room", HELLO)
    clock.advance(11)
    await layer.group_send("room", HELLO)
    assert len(layer.groups) == 0
    assert len(layer.channels) == 0


async def test_membership_expires_and_is_refreshed_by_adding_again() -> None:
    layer, clock = expiring(expiry=60, group_expiry=10)
    own = await layer.new_channel()
    for name in (own, "worker", "other"):
        await layer.group_add("room", name)
    clock.advance(6)
    await layer.group_add("room", own)
    await layer.group_add("room", "other")
    clock.advance(6)
    await layer.group_send("room", HELLO)
    assert set(layer.groups["room"]) == {own, "other"}
    assert await layer.receive(own) == HELLO
    assert await layer.receive("other") == HELLO
    await receive_nothing(layer, "worker")


async def test_an_attached_consumer_stays_a_member() -> None:
    layer, clock = expiring(expiry=60, group_expiry=10)
    channel = await layer.new_channel()
    mailbox = Mailbox(clock=clock.monotonic)
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    await layer.group_add("room", channel)
    for _ in range(3):
        clock.advance(30)
        await layer.group_send("room", HELLO)
        assert await mailbox.get_layer() == HELLO


async def test_what_came_before_the_consumer_attached_is_in_its_mailbox() -> None:
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send(channel, {"type": "one"})
    await layer.group_send("room", {"type": "two"})
    mailbox = Mailbox()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    await layer.group_send("room", {"type": "three"})
    assert [(await mailbox.get_layer())["type"] for _ in range(3)] == ["one", "two", "three"]


async def test_the_layers_capacity_is_the_mailboxes_unless_the_consumer_has_its_own() -> None:
    layer = InMemoryChannelLayer(capacity=2)
    channel = await layer.new_channel()
    layer.attach(channel, Member(Mailbox(), asyncio.get_running_loop()))
    await layer.send(channel, HELLO)
    await layer.send(channel, HELLO)
    with pytest.raises(ChannelFull):
        await layer.send(channel, HELLO)


async def test_an_attached_channel_is_not_received_from() -> None:
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    layer.attach(channel, Member(Mailbox(), asyncio.get_running_loop()))
    with pytest.raises(RuntimeError, match="belongs to a consumer"):
        await layer.receive(channel)


async def test_flush_and_close_forget_everything() -> None:
    layer = InMemoryChannelLayer()
    for end in (layer.flush, layer.close):
        own = await layer.new_channel()
        for name in (own, "worker"):
            await layer.send(name, HELLO)
            await layer.group_add("room", name)
        await end()
        assert len(layer.channels) == len(layer.groups) == 0


async def test_a_config_shared_with_other_backends_is_taken() -> None:
    layer = InMemoryChannelLayer(hosts=["redis://x"], prefix="p", symmetric_encryption_keys=["k"])
    await layer.send("worker", HELLO)
    assert await layer.receive("worker") == HELLO


async def test_a_loop_of_group_sends_does_not_overrun_consumers_that_keep_up() -> None:
    layer = InMemoryChannelLayer(capacity=10)
    got: list[int] = []

    async def consume(mailbox: Mailbox) -> None:
        while len(got) < 1500:
            got.append((await mailbox.get())["n"])

    consumers = []
    for _ in range(3):
        mailbox = Mailbox()
        channel = await layer.new_channel()
        layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
        await layer.group_add("room", channel)
        consumers.append(asyncio.create_task(consume(mailbox)))
    for number in range(500):
        await layer.group_send("room", {"type": "x", "n": number})
    assert layer.statistics()["dropped_full"] == 0
    assert len(got) == 1500
    for consumer in consumers:
        consumer.cancel()
    await asyncio.wait(consumers)


@pytest.mark.parametrize("own", [False, True])
async def test_clean_expired_drops_at_once_what_has_expired(own: bool) -> None:
    layer, clock = expiring(expiry=100, group_expiry=10)
    name = await layer.new_channel() if own else "worker"
    other = await layer.new_channel() if own else "other"
    await layer.group_add("old", other)
    await layer.send("young", HELLO)
    await layer.receive("young")  # It has just looked for what has expired.
    clock.advance(11)
    layer._clean_expired()
    assert "old" not in layer.groups
    await layer.group_add("room", name)
    await layer.send(name, HELLO)
    clock.advance(95)
    await layer.group_add("room", name)
    await layer.send("young", HELLO)
    clock.advance(6)
    layer._clean_expired()
    assert list(layer.channels) == ["young"]
    assert "room" not in layer.groups


async def test_remove_from_groups_takes_a_channel_out_of_all() -> None:
    layer = InMemoryChannelLayer()
    own = await layer.new_channel()
    for channel in (own, "worker"):
        for group in ("one", "two"):
            await layer.group_add(group, channel)
    layer._remove_from_groups(own)
    assert [set(members) for members in layer.groups.values()] == [{"worker"}, {"worker"}]
    layer._remove_from_groups("worker")
    assert len(layer.groups) == 0


async def test_messages_and_members_are_forgotten_by_deleting_the_key() -> None:
    layer = InMemoryChannelLayer()
    own = await layer.new_channel()
    for channel in (own, "worker", "other"):
        await layer.group_add("room", channel)
        await layer.send(channel, HELLO)
    del layer.channels[own]
    del layer.channels["worker"]
    assert list(layer.channels) == ["other"]
    assert set(layer.groups["room"]) == {own, "worker", "other"}
    with pytest.raises(KeyError):
        del layer.channels["worker"]
    reader = asyncio.create_task(layer.receive("worker"))
    await asyncio.sleep(0)
    layer.channels.clear()
    assert list(layer.channels) == ["worker"]
    del layer.groups["room"]
    assert len(layer.groups) == 0
    await layer.send("worker", HELLO)
    assert await reader == HELLO
    assert layer.statistics()["transport_queued"] == 0


async def test_what_it_shows_cannot_be_written_to() -> None:
    layer: Any = InMemoryChannelLayer()
    await layer.group_add("room", "worker")
    with pytest.raises(TypeError, match=r"^The in-memory layer's 'x' cannot be set here: call its"):
        layer.channels["x"] = asyncio.Queue()
    with pytest.raises(TypeError):
        layer.groups["room"]["other"] = 0.0
