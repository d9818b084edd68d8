from __future__ import annotations

import asyncio
import logging

import pytest

from channels.server.turns import TurnEnds


class Asker:
    """Writes its name down; asks again, or raises, when told to."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said
        self.then: TurnEnds | Exception | None = None

    def end_turn(self) -> None:
        self.said.append(self.name)
        then, self.then = self.then, None
        if isinstance(then, Exception):
            raise then
        if then is not None:
            then.add(self)


async def test_all_are_called_in_order_after_the_turn() -> None:
    said: list[str] = []
    turns = TurnEnds(asyncio.get_running_loop())
    for name in "abc":
        turns.add(Asker(name, said))
    assert said == []
    await asyncio.sleep(0)
    assert said == ["a", "b", "c"]


async def test_who_asks_at_the_end_is_called_after_the_next_turn() -> None:
    said: list[str] = []
    turns = TurnEnds(asyncio.get_running_loop())
    again = Asker("again", said)
    again.then = turns
    turns.add(again)
    await asyncio.sleep(0)
    assert said == ["again"]
    await asyncio.sleep(0)
    assert said == ["again", "again"]
    await asyncio.sleep(0)
    assert said == ["again", "again"]


async def test_one_that_fails_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    turns = TurnEnds(asyncio.get_running_loop())
    failing = Asker("failing", said)
    failing.then = RuntimeError("no more")
    turns.add(failing)
    turns.add(Asker("other", said))
    with caplog.at_level(logging.ERROR, "django.channels.server"):
        await asyncio.sleep(0)
    assert said == ["failing", "other"]
    assert "no more" in caplog.text
