from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
import uvloop

from channels.kit.exits import is_interrupt, run_past_exits

Loop = asyncio.AbstractEventLoop


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def sigint_is_handled() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


async def raise_it(error: BaseException) -> None:
    raise error


@pytest.mark.usefixtures("sigint_is_handled")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_ends_the_task_that_it_is_raised_in_and_nothing_else(
    loop: Loop, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> str:
        others = [asyncio.create_task(asyncio.sleep(0.01, number)) for number in range(3)]
        for _ in range(2):
            with pytest.raises(kind):
                await asyncio.create_task(raise_it(kind("mine")))
        assert await asyncio.gather(*others) == [0, 1, 2]
        return "whole"

    assert run_past_exits(loop, work()) == "whole"
    lines = [record.getMessage() for record in caplog.records if record.name == "channels.tasks"]
    assert len(lines) == 2
    assert all("mine" in line and "in raise_it" in line for line in lines)


@pytest.mark.usefixtures("sigint_is_handled")
def test_an_exit_in_a_callback_ends_nothing(loop: Loop) -> None:
    def exit_now() -> None:
        raise SystemExit

    async def work() -> str:
        loop.call_soon(exit_now)
        await asyncio.sleep(0.01)
        return "whole"

    assert run_past_exits(loop, work()) == "whole"


@pytest.mark.usefixtures("sigint_is_handled")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
def test_what_the_work_itself_raises_is_raised(loop: Loop, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        run_past_exits(loop, raise_it(kind()))


def test_an_interrupt_that_a_signal_may_have_raised_ends_everything(loop: Loop) -> None:
    async def work() -> None:
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(30)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_past_exits(loop, work())
    finally:
        signal.signal(signal.SIGINT, before)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))


def test_only_a_keyboard_interrupt_in_the_main_thread_can_be_a_signals() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert is_interrupt(KeyboardInterrupt())
        assert not is_interrupt(SystemExit())
        with asyncio.Runner() as runner:
            in_thread = runner.run(asyncio.to_thread(is_interrupt, KeyboardInterrupt()))
        assert not in_thread
    finally:
        signal.signal(signal.SIGINT, before)
