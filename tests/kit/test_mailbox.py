"""The mailbox: order, bounds, fairness, cancellation."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import InvalidOption
from channels.kit.clock import ManualClock
from channels.kit.mailbox import CLIENT_BYTES, CLIENT_EVENTS, Mailbox, MailboxBounds


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_takes_client_events_in_order() -> None:
    box = Mailbox()
    for number in range(3):
        box.put_client({"n": number})
    assert [(await box.get())["n"] for _ in range(3)] == [0, 1, 2]


async def test_serves_both_lanes_alternately() -> None:
    box = Mailbox()
    for number in range(3):
        box.put_client({"from": "client", "n": number})
        box.put_layer({"from": "layer", "n": number})
    got = [(await box.get())["from"] for _ in range(6)]
    assert got.count("client") == 3
    assert all(one != other for one, other in itertools.pairwise(got))


async def test_a_flood_of_layer_events_does_not_starve_the_client() -> None:
    box = Mailbox(MailboxBounds(capacity=1000))
    for number in range(1000):
        box.put_layer({"n": number})
    box.put_client({"type": "websocket.receive"})
    first_two = [await box.get(), await box.get()]
    assert {"type": "websocket.receive"} in first_two


async def test_get_waits_for_an_event() -> None:
    box = Mailbox()
    getting = asyncio.ensure_future(box.get())
    await turns()
    assert not getting.done()
    box.put_layer({"type": "x"})
    assert await getting == {"type": "x"}


async def test_a_second_reader_is_refused() -> None:
    box = Mailbox()
    first = asyncio.ensure_future(box.get())
    await turns()
    with pytest.raises(RuntimeError, match="one reader"):
        await box.get()
    box.put_client({})
    await first


async def test_layer_events_are_copied_one_level_deep() -> None:
    box, other = Mailbox(), Mailbox()
    shared = {"type": "x", "list": [1]}
    box.put_layer(shared)
    other.put_layer(shared)
    mine = await box.get()
    mine["type"] = "changed"
    theirs = await other.get()
    assert theirs["type"] == "x"
    assert theirs["list"] is shared["list"]


@pytest.mark.parametrize(
    ("overflow", "kept", "answers"),
    [
        ("drop_new", [0, 1], [True, True, False, False]),
        ("drop_old", [2, 3], [True, True, True, True]),
        ("latest", [2, 3], [True, True, True, True]),
        ("close", [0, 1], [True, True, False, False]),
    ],
)
def test_overflow_rules(overflow: str, kept: list[int], answers: list[bool]) -> None:
    box = Mailbox(MailboxBounds(capacity=2, overflow=overflow))  # type: ignore[arg-type]
    called: list[int] = []
    box.on_overflow = lambda: called.append(1)
    assert [box.put_layer({"n": number}) for number in range(4)] == answers
    assert box.dropped == 2
    assert len(called) == (2 if overflow == "close" else 0)
    got = []
    while (event := box.get_nowait()) is not None:
        got.append(event["n"])
    assert got == kept


def test_bytes_are_bounded_too() -> None:
    box = Mailbox(MailboxBounds(capacity_bytes=10))
    assert box.put_layer({"n": 0}, 8)
    assert not box.put_layer({"n": 1}, 3)
    assert box.put_layer({"n": 2}, 2)
    assert (box.layer_size, box.dropped) == (2, 1)


def test_one_large_event_fits_into_an_empty_lane() -> None:
    box = Mailbox(MailboxBounds(capacity_bytes=10))
    assert box.put_layer({"n": 0}, 1000)
    assert not box.put_layer({"n": 1}, 1)


def test_expired_layer_events_are_dropped_and_counted() -> None:
    clock = ManualClock()
    box = Mailbox(clock=clock.monotonic)
    box.put_layer({"n": 0}, deadline=clock.monotonic() + 1)
    box.put_layer({"n": 1}, deadline=clock.monotonic() + 3)
    clock.advance(2)
    assert box.get_nowait() == {"n": 1}
    assert box.expired == 1


def test_expired_events_make_room() -> None:
    clock = ManualClock()
    box = Mailbox(MailboxBounds(capacity=1), clock=clock.monotonic)
    box.put_layer({"n": 0}, deadline=clock.monotonic() + 1)
    clock.advance(2)
    assert box.put_layer({"n": 1})
    assert (box.dropped, box.expired) == (0, 1)


def test_expired_layer_lane_does_not_hide_the_client() -> None:
    clock = ManualClock()
    box = Mailbox(clock=clock.monotonic)
    box.put_layer({"n": 0}, deadline=clock.monotonic() + 1)
    box.put_client({"type": "client"})
    clock.advance(2)
    assert box.get_nowait() == {"type": "client"}


def test_client_lane_tells_when_it_is_full_and_when_it_has_room() -> None:
    box = Mailbox()
    room: list[int] = []
    box.on_room = lambda: room.append(1)
    for _ in range(CLIENT_EVENTS):
        assert not box.client_is_full
        box.put_client({})
    assert box.client_is_full
    box.get_nowait()
    assert room == [1]
    box.get_nowait()
    assert room == [1], "only the step from full to room is told"


def test_client_lane_counts_bytes() -> None:
    box = Mailbox()
    box.put_client({}, CLIENT_BYTES)
    assert box.client_is_full
    box.get_nowait()
    assert not box.client_is_full


def test_the_last_client_event_comes_once() -> None:
    box = Mailbox()
    told: list[int] = []
    box.on_gone = lambda: told.append(1)
    box.put_last({"type": "websocket.disconnect"})
    box.put_last({"type": "websocket.disconnect"})
    assert (box.gone, told, box.client_size) == (True, [1], 1)


def test_a_frame_may_pass_only_while_the_layer_lane_is_clear() -> None:
    box = Mailbox()
    assert box.layer_is_clear
    box.put_layer({"n": 0})
    assert not box.layer_is_clear
    box.get_nowait()
    assert not box.layer_is_clear, "the event is being handled"
    box.get_nowait()
    assert box.layer_is_clear


async def test_get_client_leaves_layer_events_and_get_layer_client_events() -> None:
    box = Mailbox()
    box.put_layer({"from": "layer"})
    box.put_client({"from": "client"})
    assert await box.get_client() == {"from": "client"}
    box.put_client({"from": "client"})
    assert await box.get_layer() == {"from": "layer"}
    assert (box.client_size, box.layer_size) == (1, 0)


async def test_a_cancelled_get_loses_nothing() -> None:
    dice = random.Random(7)
    box = Mailbox(MailboxBounds(capacity=5000))
    got: list[int] = []

    async def read() -> None:
        got.append((await box.get())["n"])

    sent = 0
    while len(got) < 1000:
        reader = asyncio.ensure_future(read())
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        for _ in range(dice.randrange(3)):
            if dice.random() < 0.5:
                box.put_client({"n": sent})
            else:
                box.put_layer({"n": sent})
            sent += 1
        if dice.random() < 0.5:
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            reader.cancel()
        else:
            box.put_client({"n": sent})
            sent += 1
        await asyncio.wait([reader])
    while (event := box.get_nowait()) is not None:
        got.append(event["n"])
    assert sorted(got) == list(range(sent))


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity_bytes": 0}, {"overflow": "explode"}])
def test_bounds_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        MailboxBounds(**wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.sampled_from(["client", "layer", "get"]), st.integers(0, 40))),
    st.sampled_from(["drop_new", "drop_old", "latest"]),
)
def test_agrees_with_a_naive_model(steps: list[tuple[str, int]], overflow: str) -> None:
    """Each lane is a list; a full layer lane follows its rule; nothing else is ever lost."""
    bounds = MailboxBounds(capacity=4, capacity_bytes=60, overflow=overflow)  # type: ignore[arg-type]
    box = Mailbox(bounds)
    lanes: dict[str, list[tuple[int, int]]] = {"client": [], "layer": []}

    def is_over(size: int) -> bool:
        layer = lanes["layer"]
        return bool(layer) and (len(layer) >= 4 or sum(s for _, s in layer) + size > 60)

    for number, (step, size) in enumerate(steps):
        if step == "client":
            box.put_client({"lane": "client", "n": number}, size)
            lanes["client"].append((number, size))
        elif step == "layer":
            box.put_layer({"lane": "layer", "n": number}, size)
            if is_over(size) and overflow == "drop_new":
                continue
            while is_over(size):
                lanes["layer"] = [] if overflow == "latest" else lanes["layer"][1:]
            lanes["layer"].append((number, size))
        elif (event := box.get_nowait()) is None:
            assert not lanes["client"]
            assert not lanes["layer"]
        else:
            assert lanes[event["lane"]].pop(0)[0] == event["n"]
    assert (box.client_size, box.layer_size) == (len(lanes["client"]), len(lanes["layer"]))


async def test_whoever_asked_learns_when_the_last_event_is_taken() -> None:
    mailbox = Mailbox()
    told: list[int] = []
    mailbox.on_last_taken = lambda: told.append(mailbox.client_size)
    mailbox.put_client({"type": "a"})
    mailbox.put_last({"type": "last"})
    assert await mailbox.get_client() == {"type": "a"}
    assert told == []
    assert mailbox.get_nowait() == {"type": "last"}
    assert told == [0]


async def test_whoever_asked_is_told_of_the_next_event_once() -> None:
    box, told = Mailbox(), []
    for put in (box.put_client, box.put_layer, box.put_last):
        box.on_event = lambda: told.append(box.get_nowait())
        put({"type": "first"})
        assert told == [{"type": "first"}]
        told.clear()
    box.put_layer({"type": "second"})
    assert told == []
    assert await box.get() == {"type": "second"}


async def test_the_last_event_can_be_seen_before_it_is_taken() -> None:
    mailbox = Mailbox()
    mailbox.put_client({"type": "first"})
    assert mailbox.peek_last() is None
    mailbox.put_last({"type": "last"})
    assert mailbox.peek_last() is None
    assert await mailbox.get_client() == {"type": "first"}
    assert mailbox.peek_last() == {"type": "last"}
    assert await mailbox.get_client() == {"type": "last"}
    assert mailbox.peek_last() is None
