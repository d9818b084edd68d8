"""Callbacks into loops: order, one wake-up, slices, closed loops; which events are ready frames."""

import asyncio
from typing import Any

import pytest

from channels.fanout.delivery import SLICE_CALLS, Event, post
from channels.testing.layers.base import soon, until
from channels.wire.frames import BINARY, TEXT, server_frame


async def test_callbacks_arrive_in_order_and_one_that_fails_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[float] = []
    loop = asyncio.get_running_loop()

    def post_all() -> None:
        for number in range(1000):
            post(loop, lambda number=number: got.append(1 / (number - 500)))  # type: ignore[misc]

    await asyncio.to_thread(post_all)
    await until(lambda: len(got) == 999, "the callbacks")
    assert got[:500] == [1 / (number - 500) for number in range(500)]
    assert "ZeroDivisionError" in caplog.text


async def test_many_callbacks_wake_the_loop_once() -> None:
    wakes: list[int] = []
    other = asyncio.new_event_loop()
    plain = other.call_soon_threadsafe
    other.call_soon_threadsafe = lambda *call, **more: wakes.append(1) or plain(*call, **more)  # type: ignore[func-returns-value,method-assign]
    done: list[int] = []
    for number in range(100):
        assert post(other, lambda number=number: done.append(number))  # type: ignore[misc]
    await asyncio.to_thread(other.run_until_complete, asyncio.sleep(0.01))
    other.close()
    assert done == list(range(100))
    assert len(wakes) == 1


async def test_a_crowd_is_woken_in_slices_and_the_loop_runs_between() -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3 * SLICE_CALLS)]
    # One whose waiter has gone meanwhile.
    futures[SLICE_CALLS].cancel()
    for future in futures:
        assert post(loop, future)
    turns = [0]
    while not all(future.done() for future in futures):
        await asyncio.sleep(0)
        now = sum(future.done() for future in futures)
        assert now - turns[-1] <= SLICE_CALLS + 1
        turns.append(now)
    # What comes when all is served wakes the loop again.
    late = loop.create_future()
    post(loop, late)
    await soon(late)


async def test_a_closed_loop_takes_nothing() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    assert not post(closed, lambda: None)


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ({"type": "websocket.send", "text": "a"}, server_frame(TEXT, b"a")),
        ({"type": "websocket.send", "text": ""}, server_frame(TEXT, b"")),
        ({"type": "websocket.send", "bytes": b"a"}, server_frame(BINARY, b"a")),
        ({"type": "websocket.send", "text": "a", "bytes": None}, server_frame(TEXT, b"a")),
        ({"type": "websocket.send", "text": None, "bytes": b""}, server_frame(BINARY, b"")),
    ],
)
def test_outbound_events_are_prepared(message: dict[str, Any], frame: bytes) -> None:
    event = Event(message)
    assert event.prepared is not None
    assert event.prepared.frame() == frame


@pytest.mark.parametrize(
    "message",
    [
        {"type": "chat.message", "text": "a"},
        {"text": "a"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send", "text": b"a"},
        {"type": "websocket.send", "bytes": "a"},
        {"type": "websocket.send", "text": "a", "close": True},
        {"type": "websocket.close"},
    ],
)
def test_all_others_need_their_consumer(message: dict[str, Any]) -> None:
    assert Event(message).prepared is None
