"""Leases whose time this process keeps, by a loop whose clock is turned by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.backends.lease_table import LeaseTable


class TurnedLoop(asyncio.SelectorEventLoop):
    """Its time passes by `pass_time` alone, but for what a selector waits."""

    now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def loop() -> Any:
    loop = TurnedLoop()
    yield loop
    loop.close()


def pass_time(loop: TurnedLoop, seconds: float) -> None:
    loop.now += seconds
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))


def make(loop: TurnedLoop, *leases: tuple[str, float, float]) -> tuple[Any, list[str], list[bytes]]:
    """A table with these leases: name, seconds, and how often it is renewed."""
    told: list[str] = []

    async def fill() -> list[bytes]:
        return [table.add(name, seconds, every) for name, seconds, every in leases]

    table = LeaseTable[str](
        lambda name: told.append(f"{name} ran out"), lambda name: told.append(f"{name} renewed")
    )
    return table, told, loop.run_until_complete(fill())


def test_a_lease_is_renewed_until_it_runs_out(loop: TurnedLoop) -> None:
    table, told, (token,) = make(loop, ("job", 5.0, 2.0))
    for seconds, expected in ((1.9, []), (0.2, ["job renewed"]), (2.0, ["job renewed"] * 2)):
        pass_time(loop, seconds)
        assert told == expected
    assert table.find(token) == "job"
    pass_time(loop, 1.0)
    assert told[2:] == ["job ran out"]
    assert table.find(token) is None
    assert table.end(token) is None
    assert not table


def test_one_that_is_extended_runs_from_then_on(loop: TurnedLoop) -> None:
    table, told, (token,) = make(loop, ("job", 5.0, 100.0))

    async def extend() -> bool:
        return bool(table.extend(token, 5.0))

    pass_time(loop, 4.0)
    assert loop.run_until_complete(extend())
    pass_time(loop, 4.0)
    assert told == []
    pass_time(loop, 1.1)
    assert told == ["job ran out"]
    assert not loop.run_until_complete(extend())


def test_what_was_ended_or_forgotten_is_told_no_more(loop: TurnedLoop) -> None:
    table, told, (first, second) = make(loop, ("first", 5.0, 2.0), ("second", 5.0, 2.0))
    assert first != second
    assert table.end(first) == "first"
    assert len(table) == 1
    table.clear()
    pass_time(loop, 10.0)
    assert told == []
    assert table.find(second) is None
