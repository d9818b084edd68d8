"""When a process looks at what is due."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from channels.backends.ticker import LONGEST, Tick, Ticker

#: Seconds in which a look must have been taken, well under `LONGEST`.
SOON = 3.0


class Looks:
    """Counts the looks; `answers` are what they give, None from then on."""

    def __init__(self, *answers: float | None) -> None:
        self.count = 0
        self._answers = list(answers)
        self._looked = asyncio.Event()

    async def tick(self) -> float | None:
        self.count += 1
        self._looked.set()
        return self._answers.pop(0) if self._answers else None

    async def until(self, count: int) -> None:
        async with asyncio.timeout(SOON):
            while self.count < count:
                self._looked.clear()
                await self._looked.wait()


@contextlib.asynccontextmanager
async def running(ticker: Ticker, tick: Tick) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(ticker.run(tick))
    yield task
    task.cancel()
    await asyncio.wait([task])


async def test_it_looks_at_once_and_when_the_broker_said() -> None:
    looks = Looks(0.05, 0.05)
    began = time.monotonic()
    async with running(Ticker(), looks.tick):
        await looks.until(3)
    assert time.monotonic() - began >= 0.1


async def test_something_of_its_own_is_due_sooner() -> None:
    ticker, looks = Ticker(), Looks()
    async with running(ticker, looks.tick):
        await looks.until(1)
        ticker.due_in(0.05)
        ticker.due_in(60)
        await looks.until(2)


async def test_what_is_told_during_a_look_is_not_forgotten() -> None:
    ticker, looks = Ticker(), Looks()

    async def tick() -> float | None:
        if looks.count == 0:
            ticker.due_in(0.01)
            # The look is older than this.
            await asyncio.sleep(0.02)
        return await looks.tick()

    async with running(ticker, tick):
        await looks.until(2)


async def test_the_longest_pause_is_that_of_the_contract() -> None:
    assert LONGEST <= 5.0


async def test_it_runs_on_one_loop_after_the_other_and_a_failure_ends_it() -> None:
    ticker, looks = Ticker(), Looks()

    async def once() -> None:
        async with running(ticker, looks.tick):
            await looks.until(looks.count + 1)

    await asyncio.to_thread(asyncio.run, _with_own_looks(ticker))
    await once()

    async def fail() -> float | None:
        raise LookupError

    with pytest.raises(LookupError):
        await ticker.run(fail)


async def _with_own_looks(ticker: Ticker) -> None:
    looks = Looks()
    async with running(ticker, looks.tick):
        await looks.until(1)
        ticker.due_in(0.0)
        await looks.until(2)
