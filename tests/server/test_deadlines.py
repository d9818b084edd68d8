"""One timer serves all deadlines of a connection; the clock is turned by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from channels.server.deadlines import Deadlines


class Handle:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when_due = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class HandTurnedLoop:
    """`call_at` and `time`, moved on by `turn`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.handles: list[Handle] = []
        self.calls = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        self.calls += 1
        handle = Handle(when, callback)
        self.handles.append(handle)
        return handle

    @property
    def waiting(self) -> list[Handle]:
        return [handle for handle in self.handles if not handle.is_cancelled]

    def turn(self, seconds: float) -> None:
        self.now += seconds
        while due := [handle for handle in self.waiting if handle.when_due <= self.now]:
            self.handles.remove(due[0])
            due[0].callback()


@pytest.fixture
def loop() -> HandTurnedLoop:
    return HandTurnedLoop()


@pytest.fixture
def passed() -> list[str]:
    return []


@pytest.fixture
def deadlines(loop: HandTurnedLoop, passed: list[str]) -> Deadlines:
    return Deadlines(loop, passed.append)


def test_each_is_named_once_when_it_passes(
    deadlines: Deadlines, loop: HandTurnedLoop, passed: list[str]
) -> None:
    deadlines.set("late", 10)
    deadlines.set("early", 2)
    loop.turn(1.9)
    assert passed == []
    loop.turn(0.2)
    assert passed == ["early"]
    assert "early" not in deadlines
    loop.turn(60)
    assert passed == ["early", "late"]
    assert loop.waiting == []


def test_set_again_moves_and_none_or_clear_forgets(
    deadlines: Deadlines, loop: HandTurnedLoop, passed: list[str]
) -> None:
    for name in ("moved", "cleared", "unset"):
        deadlines.set(name, 1)
    deadlines.set("moved", 5)
    deadlines.clear("cleared")
    deadlines.set("unset", None)
    deadlines.clear("never set")
    loop.turn(4.9)
    assert passed == []
    loop.turn(0.2)
    assert passed == ["moved"]


def test_moving_on_does_not_touch_the_timer(deadlines: Deadlines, loop: HandTurnedLoop) -> None:
    deadlines.set("ping", 20)
    for _ in range(1000):
        deadlines.set("ping", 20)
        deadlines.set("write", 30)
        deadlines.clear("write")
    assert loop.calls == 1
    assert len(loop.waiting) == 1


def test_one_that_passes_may_change_the_others(loop: HandTurnedLoop) -> None:
    passed: list[str] = []

    def on_due(name: str) -> None:
        passed.append(name)
        if name == "first":
            moments.clear("second")
            moments.set("first", 1)

    moments = Deadlines(loop, on_due)
    moments.set("first", 1)
    moments.set("second", 1)
    loop.turn(1)
    assert passed == ["first"]
    loop.turn(1)
    assert passed == ["first", "first"]
    assert len(loop.waiting) == 1


def test_one_that_is_set_again_as_it_passes_does_not_delay_an_earlier_one(
    loop: HandTurnedLoop,
) -> None:
    passed: list[tuple[str, float]] = []

    def on_due(name: str) -> None:
        passed.append((name, loop.now))
        if name == "ping":
            moments.set("ping", 20)

    moments = Deadlines(loop, on_due)
    moments.set("ping", 20)
    moments.set("pong", 25)
    for _ in range(50):
        loop.turn(1)
    assert passed == [("ping", 120), ("pong", 125), ("ping", 140)]


def test_close_leaves_no_timer_behind(
    deadlines: Deadlines, loop: HandTurnedLoop, passed: list[str]
) -> None:
    deadlines.set("a", 1)
    deadlines.close()
    deadlines.close()
    assert loop.waiting == []
    loop.turn(5)
    assert passed == []
