"""The two public functions that other packages take from `channels.utils`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from channels.utils import await_many_dispatch, name_that_thing


class Thing:
    def method(self) -> None:
        """Something to name."""


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (name_that_thing, "channels.utils.name_that_thing"),
        (Thing, f"{__name__}.Thing"),
        (Thing(), f"{__name__}.Thing"),
        (Thing().method, f"{__name__}.Thing.method"),
        (partial(print), "functools.partial"),
        ("text", "builtins.str"),
        (len, "builtins.len"),
    ],
)
def test_names(thing: Any, name: str) -> None:
    assert name_that_thing(thing) == name


class Sources:
    """Two queues to read from, and what was dispatched."""

    def __init__(self) -> None:
        self.queues: list[asyncio.Queue[Any]] = [asyncio.Queue(), asyncio.Queue()]
        self.seen: list[Any] = []
        self.heard = asyncio.Event()

    async def dispatch(self, event: Any) -> None:
        self.seen.append(event)
        self.heard.set()
        if isinstance(event, Exception):
            raise event

    async def hear(self, *events: Any) -> None:
        while self.seen != list(events):
            self.heard.clear()
            await self.heard.wait()

    def start(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(
            await_many_dispatch([queue.get for queue in self.queues], self.dispatch)
        )


async def test_every_source_is_read_again_and_again() -> None:
    sources = Sources()
    task = sources.start()
    for number, queue in enumerate([*sources.queues, *sources.queues]):
        queue.put_nowait(number)
        await sources.hear(*range(number + 1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_sources_may_give_any_awaitable() -> None:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Future[str]] = []

    def source() -> asyncio.Future[str]:
        made.append(loop.create_future())
        return made[-1]

    sources = Sources()
    task = asyncio.ensure_future(await_many_dispatch([source], sources.dispatch))
    await asyncio.sleep(0)
    made[0].set_result("a")
    await sources.hear("a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[1].cancelled()


async def test_an_error_ends_it_and_nothing_goes_on() -> None:
    sources = Sources()
    task = sources.start()
    sources.queues[0].put_nowait(KeyError("mine"))
    with pytest.raises(KeyError, match="mine"):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_is_taken_that_will_not_be_dispatched() -> None:
    sources = Sources()
    for event in (KeyError("mine"), "left"):
        sources.queues[0].put_nowait(event)
    with pytest.raises(KeyError, match="mine"):
        await sources.start()
    assert sources.queues[0].get_nowait() == "left"


async def test_an_error_of_a_source_ends_it() -> None:
    async def broken() -> None:
        raise KeyError("mine")

    async def broken_too() -> None:
        raise KeyError("another")

    with pytest.raises(KeyError, match="mine"):
        await await_many_dispatch([broken, broken_too], Sources().dispatch)
    assert asyncio.all_tasks() == {asyncio.current_task()}
