"""The hub against a naive model, and on several loops."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from channels.fanout import delivery
from channels.fanout.delivery import Event, Member
from channels.fanout.hub import Hub
from channels.fanout.prepared import PLAIN
from channels.kit.mailbox import Mailbox, MailboxBounds
from channels.wire.frames import TEXT, server_frame

CHANNELS = [f"c{index}" for index in range(5)]
GROUPS = ["g", "h"]


class ListSink:
    def __init__(self) -> None:
        self.form: str | None = PLAIN
        self.frames: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)


def drain(mailbox: Mailbox) -> list[Any]:
    got = []
    while (event := mailbox.get_layer_nowait()) is not None:
        got.append(event["n"])
    return got


async def served(hub: Hub) -> int:
    """The turns of the loop that it took until nothing waited."""
    turns = 0
    while hub.backlog():
        await asyncio.sleep(0)
        turns += 1
    return turns


class HubMachine(RuleBasedStateMachine):
    """Every channel sees what a dict of sets says that it should, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.emptied: list[str] = []
        self.hub = Hub()
        self.hub.on_emptied = self.emptied.append
        self.mailboxes: dict[str, Mailbox] = {}
        self.groups: dict[str, set[str]] = {group: set() for group in GROUPS}
        self.expected: dict[str, list[int]] = {}
        self.count = 0

    def run(self, work: Callable[[], object]) -> None:
        async def inside() -> None:
            work()
            await served(self.hub)

        self.loop.run_until_complete(inside())

    @rule(channel=st.sampled_from(CHANNELS))
    def attach(self, channel: str) -> None:
        mailbox = Mailbox(MailboxBounds(capacity=10_000))
        self.mailboxes[channel] = mailbox
        self.expected[channel] = []
        self.hub.attach(channel, Member(mailbox, self.loop))

    @rule(channel=st.sampled_from(CHANNELS))
    def detach(self, channel: str) -> None:
        self.hub.detach(channel)
        self.mailboxes.pop(channel, None)
        for members in self.groups.values():
            members.discard(channel)

    @rule(group=st.sampled_from(GROUPS), channel=st.sampled_from(CHANNELS))
    def add(self, group: str, channel: str) -> None:
        if channel in self.mailboxes:
            self.hub.add(group, channel)
            self.groups[group].add(channel)
        else:
            with pytest.raises(KeyError):
                self.hub.add(group, channel)

    @rule(group=st.sampled_from(GROUPS), channel=st.sampled_from(CHANNELS))
    def discard(self, group: str, channel: str) -> None:
        before = len(self.emptied)
        assert self.hub.discard(group, channel) is (channel in self.groups[group])
        was_last = self.groups[group] == {channel}
        self.groups[group].discard(channel)
        assert self.emptied[before:] == ([group] if was_last else [])

    @rule(group=st.sampled_from(GROUPS), times=st.integers(1, 3))
    def publish(self, group: str, times: int) -> None:
        def send() -> None:
            for _ in range(times):
                self.count += 1
                self.hub.publish(group, Event({"type": "x", "n": self.count}))
                for channel in self.groups[group]:
                    self.expected[channel].append(self.count)

        self.run(send)

    @rule(channel=st.sampled_from(CHANNELS))
    def deliver(self, channel: str) -> None:
        self.count += 1
        event = Event({"type": "x", "n": self.count})
        if channel in self.mailboxes:
            self.run(lambda: self.hub.deliver(channel, event))
            self.expected[channel].append(self.count)
        else:
            with pytest.raises(KeyError):
                self.hub.deliver(channel, event)

    @invariant()
    def mailboxes_hold_what_they_should(self) -> None:
        for channel, mailbox in self.mailboxes.items():
            assert drain(mailbox) == self.expected[channel]
            self.expected[channel].clear()
            in_groups = {group for group in GROUPS if channel in self.groups[group]}
            assert self.hub.groups_of(channel) == in_groups

    def teardown(self) -> None:
        self.loop.close()


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def attach(hub: Hub, channel: str, group: str = "g", **member: Any) -> Mailbox:
    mailbox = member.pop("mailbox", None) or Mailbox()
    hub.attach(channel, Member(mailbox, asyncio.get_running_loop(), **member))
    hub.add(group, channel)
    return mailbox


async def test_frames_and_events_in_one_group() -> None:
    hub = Hub()
    sinks = [ListSink() for _ in range(3)]
    sinks[1].form = None
    mailboxes = [attach(hub, f"c{n}", sink=sink) for n, sink in enumerate(sinks)]
    mailboxes.append(attach(hub, "plain"))
    hub.publish("g", Event({"type": "websocket.send", "text": "hi"}))
    frame = server_frame(TEXT, b"hi")
    assert [sink.frames for sink in sinks] == [[frame], [], [frame]]
    assert [mailbox.layer_size for mailbox in mailboxes] == [0, 1, 0, 1]
    counts = hub.statistics()
    assert (counts["delivered_as_frames"], counts["delivered"]) == (2, 2)


async def test_a_member_is_reached_under_its_new_registration() -> None:
    hub = Hub()
    former = attach(hub, "c")
    now = Mailbox()
    hub.attach("c", Member(now, asyncio.get_running_loop()))
    hub.publish("g", Event({"type": "x"}))
    assert (former.layer_size, now.layer_size) == (0, 1)


async def test_full_members_are_counted_and_logged_once_in_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    hub = Hub(clock=lambda: now[0])
    for name in "abc":
        attach(hub, name, mailbox=Mailbox(MailboxBounds(capacity=1)))
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            hub.publish("g", Event({"type": "x"}))
        assert [record.getMessage() for record in caplog.records] == [
            "3 of 3 channels over capacity in group g"
        ]
        now[0] += 5
        hub.publish("g", Event({"type": "x"}))
    assert "(2 more since the last such line)" in caplog.text
    assert hub.statistics()["dropped_full"] == 12


async def test_a_large_group_is_served_in_slices_and_the_loop_runs_between() -> None:
    hub = Hub()
    mailboxes = [attach(hub, f"c{n}") for n in range(3 * delivery.SLICE_MEMBERS)]
    hub.publish("g", Event({"type": "x", "n": 1}))
    assert hub.backlog() == 1
    reached = sum(mailbox.layer_size for mailbox in mailboxes)
    assert 0 < reached <= delivery.SLICE_MEMBERS
    # What comes later for a member that is not reached yet waits behind it.
    assert hub.deliver(f"c{len(mailboxes) - 1}", Event({"type": "x", "n": 2})) is None
    hub.publish("g", Event({"type": "x", "n": 3}))
    assert await served(hub) >= 3
    assert [drain(mailbox) for mailbox in mailboxes[:-1]] == [[1, 3]] * (len(mailboxes) - 1)
    assert drain(mailboxes[-1]) == [1, 2, 3]


async def test_members_that_leave_meanwhile_do_not_disturb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub()
    mailboxes = [attach(hub, f"c{n}") for n in range(2500)]
    hub.publish("g", Event({"type": "x", "n": 1}))
    for n in range(0, 2500, 2):
        hub.detach(f"c{n}")
    await served(hub)
    assert all(drain(mailbox) == [1] for mailbox in mailboxes[1::2])


async def test_deliveries_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING", 5)
    hub = Hub()
    for n in range(1500):
        attach(hub, f"c{n}")
    for _ in range(10):
        hub.publish("g", Event({"type": "x"}))
    assert hub.backlog() == 5
    assert hub.statistics()["dropped_backlog"] == 5 * 1500
    await served(hub)


async def test_members_of_other_loops_are_posted_to_and_dropped_with_their_loop() -> None:
    hub = Hub()
    here = attach(hub, "here")
    other = asyncio.new_event_loop()
    there = Mailbox()
    hub.attach("there", Member(there, other))
    hub.add("g", "there")
    hub.publish("g", Event({"type": "x"}))
    assert (here.layer_size, there.layer_size) == (1, 0)
    await asyncio.to_thread(other.run_until_complete, asyncio.sleep(0))
    assert there.layer_size == 1
    other.close()
    hub.publish("g", Event({"type": "x"}))
    assert "there" not in hub.channels
    assert here.layer_size == 2
    assert hub.statistics()["local_channels"] == 1


async def test_what_was_counted_stays_when_its_members_have_gone() -> None:
    hub = Hub()
    attach(hub, "c1")
    hub.publish("g", Event({"type": "x"}))
    attach(hub, "c2")
    hub.publish("g", Event({"type": "x"}))
    displaced = attach(hub, "small", mailbox=Mailbox(MailboxBounds(capacity=1, overflow="latest")))
    for _ in range(3):
        hub.deliver("small", Event({"type": "x"}))
    expired = attach(hub, "late", mailbox=Mailbox(clock=lambda: 2.0))
    for _ in range(4):
        hub.deliver("late", Event({"type": "x"}, deadline=1.0))
    assert expired.get_layer_nowait() is None
    broken = ListSink()
    del broken.frames
    attach(hub, "broken", sink=broken)
    hub.deliver("broken", Event({"type": "websocket.send", "text": "hi"}))
    counts = hub.statistics()
    assert displaced.displaced == 2
    expected = {
        "delivered": 10,
        "delivered_as_frames": 0,
        "dropped_full": 0,
        "dropped_displaced": 2,
        "dropped_unread": 0,
        "expired": 4,
        "dropped_failed": 1,
        "dropped_backlog": 0,
        "waiting": 4,
        "local_channels": 5,
        "local_groups": 1,
    }
    assert counts == expected
    for channel in ("c1", "c2", "small", "late", "broken", "unknown"):
        hub.detach(channel)
    gone = {"dropped_unread": 2 + 1 + 1, "waiting": 0, "local_channels": 0, "local_groups": 0}
    assert hub.statistics() == expected | gone


async def test_members_of_no_loop_are_reached_at_once_and_their_groups_end() -> None:
    emptied: list[str] = []
    told: list[str] = []
    hub = Hub()
    hub.on_emptied = emptied.append
    hub.on_full = told.append
    box = Mailbox(MailboxBounds(capacity=2, capacity_bytes=10))
    hub.attach("c", Member(box, None))
    hub.add("g", "c")
    hub.publish("g", Event({"type": "x"}))
    hub.publish("g", Event({"type": "x"}, size=10))
    assert (box.layer_size, told) == (2, [])
    hub.publish("g", Event({"type": "x"}))
    assert told == ["g"], "a full member of a group is told of"
    assert hub.deliver("c", Event({"type": "x"})) is False
    assert told == ["g"]
    assert hub.statistics()["delivered"] == 2
    assert hub.discard("g", "c")
    assert not hub.discard("g", "c")
    assert (emptied, hub.groups_of("c")) == (["g"], frozenset())
    hub.add("g", "c")
    assert hub.is_member("c")


async def test_a_mailbox_that_is_replaced_is_counted_once() -> None:
    hub = Hub()
    small = Mailbox(MailboxBounds(capacity=1, overflow="latest"))
    attach(hub, "c", mailbox=small)
    for _ in range(2):
        hub.deliver("c", Event({"type": "x"}))
    hub.attach("c", Member(small, asyncio.get_running_loop()))
    hub.attach("c", Member(Mailbox(), asyncio.get_running_loop()))
    assert hub.statistics()["dropped_displaced"] == 1


async def test_forgetting_groups_keeps_channels() -> None:
    emptied: list[str] = []
    hub = Hub()
    hub.on_emptied = emptied.append
    mailbox = attach(hub, "c")
    attach(hub, "d", "h")
    hub.forget_groups()
    hub.publish("g", Event({"type": "x"}))
    assert sorted(emptied) == ["g", "h"]
    assert mailbox.layer_size == 0
    assert hub.deliver("c", Event({"type": "x"})) is True
