"""Who held the loop: found while it is held, on every loop."""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import selectors
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from channels.kit import exits
from channels.kit.throttle import Throttle
from channels.server import Server, ServerOptions
from channels.server.endpoints import Endpoint
from channels.server.watchdog import LoopStall, Watchdog, log_held

SECONDS = 0.05

Start = Callable[..., "queue.Queue[LoopStall]"]


@pytest.fixture
def watch() -> Iterator[Start]:
    """Starts a watchdog of the running loop; what it tells is in the queue."""
    dogs: list[Watchdog] = []

    def start(*, by_cpu: bool = False) -> queue.Queue[LoopStall]:
        told: queue.Queue[LoopStall] = queue.Queue()
        dog = Watchdog(SECONDS, told.put, by_cpu=by_cpu)
        dog.start()
        dogs.append(dog)
        return told

    yield start
    for dog in dogs:
        dog.stop()


def compute_for_long(seconds: float = 8 * SECONDS) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def wait_for_long() -> None:
    time.sleep(8 * SECONDS)


async def heard(told: queue.Queue[LoopStall]) -> LoopStall:
    return await asyncio.to_thread(told.get, timeout=10)


@pytest.mark.parametrize("hold", [compute_for_long, wait_for_long])
async def test_what_holds_the_loop_is_named_with_its_stack(
    watch: Start, hold: Callable[[], None]
) -> None:
    told = watch()
    await asyncio.sleep(2 * SECONDS)
    asyncio.get_running_loop().call_soon(hold)
    held = await heard(told)
    while not (held.is_over and hold.__name__ in [frame.name for frame in held.stack]):
        # A busy machine: something else was late before, or it is told of already while it holds.
        held = await heard(told)
    assert held.seconds >= SECONDS
    # The loop's own callers are left out.
    assert {frame.filename for frame in held.stack} == {__file__}
    assert held.cpu_seconds >= 0
    assert (held.cpu_seconds > SECONDS) == (hold is compute_for_long)


async def test_by_processor_time_a_loop_that_waits_is_not_held(watch: Start) -> None:
    told = watch(by_cpu=True)
    wait_for_long()
    await asyncio.sleep(2 * SECONDS)
    compute_for_long()
    held = await heard(told)
    assert "compute_for_long" in [frame.name for frame in held.stack]
    assert held.cpu_seconds >= SECONDS


async def test_a_call_that_lets_no_other_thread_run_is_told(watch: Start) -> None:
    told = watch(by_cpu=True)
    await asyncio.sleep(2 * SECONDS)
    used, size = time.thread_time(), 20
    while time.thread_time() - used < 3 * SECONDS:
        # Backtracks, without ever giving the interpreter's lock to another thread.
        size += 1
        used = time.thread_time()
        re.match(r"(a|a)*b", "a" * size)
    assert (await heard(told)).cpu_seconds >= SECONDS


async def test_what_does_not_end_is_told_while_it_lasts(
    watch: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.watchdog.STILL_SECONDS", 2 * SECONDS)
    told = watch()
    go = threading.Event()

    def hold_until_told() -> None:
        while told.get(timeout=10).is_over:
            pass
        go.set()

    await asyncio.sleep(2 * SECONDS)
    hold_until_told()
    assert go.is_set()
    assert (await heard(told)).is_over


async def test_a_loop_that_turns_is_left_alone(watch: Start) -> None:
    told = watch(by_cpu=True)
    until = time.monotonic() + 6 * SECONDS
    while time.monotonic() < until:
        compute_for_long(SECONDS / 20)
        await asyncio.sleep(0)
    assert told.empty()


async def test_it_ends_when_it_is_stopped_and_with_its_loop() -> None:
    def dogs() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "channels-watchdog"]

    async def leave_it() -> None:
        Watchdog(SECONDS, print).start()

    before = set(dogs())
    dog = Watchdog(SECONDS, print)
    dog.start()
    await asyncio.to_thread(asyncio.run, leave_it())
    mine = [each for each in dogs() if each not in before]
    dog.stop()
    for each in mine:
        await asyncio.to_thread(each.join, 10)
        assert not each.is_alive()


def test_each_place_is_one_line_in_its_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.watchdog._throttle", Throttle(5.0))
    stack = _stack("slow_view")
    for _ in range(3):
        log_held(LoopStall(0.1234, 0.1, stack, is_over=True))
    log_held(LoopStall(6.0, 0.0, (), is_over=False))
    first, second = (record.getMessage().splitlines() for record in caplog.records)
    assert first[0].startswith(
        "The event loop was held for 123 ms (100 ms of processor time) by slow_view in /"
    )
    assert any("slow_view" in line for line in first[1:])
    assert second[0].startswith("The event loop is still held for 6000 ms")


def test_the_projects_line_is_named_and_the_way_there_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.watchdog._throttle", Throttle(5.0))
    ours, library = exits.__file__, selectors.__file__
    stack = tuple(
        traceback.FrameSummary(path, line, name, lookup_line=False)
        for path, line, name in (
            (ours, 1, "_handle"),
            ("/site/chat/consumers.py", 18, "receive"),
            (library, 7, "select"),
        )
    )
    log_held(LoopStall(1.5, 0.0, stack, is_over=True))
    first, *shown = caplog.messages[0].splitlines()
    assert first.endswith(
        "by receive in /site/chat/consumers.py:18: await an asynchronous call there, or put the "
        "work into a thread (sync_to_async)"
    )
    places = [line.split(", in ")[-1] for line in shown if line.startswith("  File ")]
    assert places == ["receive", "select"]


def _stack(name: str) -> tuple[traceback.FrameSummary, ...]:
    return (traceback.FrameSummary(__file__, 1, name, lookup_line=False),)


async def test_a_server_watches_its_loop_if_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.watchdog._throttle", Throttle(5.0))

    def hold() -> None:
        time.sleep(0.3)

    options = ServerOptions(slow_callback_ms=50, lifespan="off")
    server = Server(_no_application, [Endpoint("tcp", host="127.0.0.1")], options)
    with caplog.at_level(logging.WARNING, "django.channels.server"):
        await server.start()
        await asyncio.sleep(0.1)
        hold()
        while "by hold in " not in caplog.text:  # noqa: ASYNC110 - another thread writes it
            await asyncio.sleep(0.01)
        await server.stop()


async def _no_application(scope: object, receive: object, send: object) -> None: ...
