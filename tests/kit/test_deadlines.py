"""Many equal timeouts with one timer: they end like `asyncio.timeout`."""

import asyncio

import pytest

from channels.kit.deadlines import Deadline, SharedTimeout

FOR_EVER = 60.0


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_what_takes_too_long_ends_in_a_timeout_error() -> None:
    deadlines = SharedTimeout(0.01)
    with pytest.raises(TimeoutError), Deadline(deadlines) as deadline:
        await asyncio.sleep(FOR_EVER)
    assert deadline.is_over
    assert cancelling() == 0
    assert not deadlines.under_way


async def test_what_is_done_in_time_goes_on() -> None:
    deadlines = SharedTimeout(FOR_EVER)
    with Deadline(deadlines) as deadline:
        await asyncio.sleep(0)
    assert not deadline.is_over
    assert not deadlines.under_way


async def test_each_has_its_own_time_by_one_timer() -> None:
    deadlines = SharedTimeout(0.05)
    loop = asyncio.get_running_loop()

    async def wait() -> float:
        began = loop.time()
        with pytest.raises(TimeoutError), Deadline(deadlines):
            await asyncio.sleep(FOR_EVER)
        return loop.time() - began

    waits = []
    for _ in range(5):
        waits.append(asyncio.create_task(wait()))
        await asyncio.sleep(0.01)
    assert deadlines.timer is not None
    assert min(await asyncio.gather(*waits)) >= 0.049


async def test_the_timer_ends_when_nothing_is_under_way_and_begins_anew() -> None:
    deadlines = SharedTimeout(0.01)
    with Deadline(deadlines):
        await asyncio.sleep(0)
    while deadlines.timer is not None:  # noqa: ASYNC110 - there is no event but the timer's own
        await asyncio.sleep(0.001)
    with pytest.raises(TimeoutError), Deadline(deadlines):
        await asyncio.sleep(FOR_EVER)


async def test_a_cancellation_by_others_stays_one() -> None:
    deadlines = SharedTimeout(0.01)

    async def wait() -> None:
        with Deadline(deadlines):
            try:
                await asyncio.sleep(FOR_EVER)
            except asyncio.CancelledError:
                # The time is over while it cleans up.
                await asyncio.sleep(FOR_EVER)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_inside_a_task_that_cleans_up_after_its_cancellation() -> None:
    deadlines = SharedTimeout(0.01)
    cleaned = False

    async def wait() -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(FOR_EVER)
        finally:
            with pytest.raises(TimeoutError), Deadline(deadlines):
                await asyncio.sleep(FOR_EVER)
            cleaned = True

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned


async def test_other_errors_pass() -> None:
    deadlines = SharedTimeout(FOR_EVER)
    with pytest.raises(LookupError), Deadline(deadlines):
        raise LookupError
    assert not deadlines.under_way


async def test_an_error_in_answer_to_the_timeout_is_the_one_that_is_raised() -> None:
    deadlines = SharedTimeout(0.01)

    async def fail() -> None:
        try:
            await asyncio.sleep(FOR_EVER)
        except asyncio.CancelledError:
            raise LookupError from None

    with pytest.raises(LookupError), Deadline(deadlines):
        await fail()
    assert cancelling() == 0


async def test_it_is_for_tasks() -> None:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[BaseException] = loop.create_future()

    def enter() -> None:
        try:
            Deadline(SharedTimeout(1.0)).__enter__()
        except RuntimeError as error:
            found.set_result(error)

    loop.call_soon(enter)
    assert "task" in str(await found)
