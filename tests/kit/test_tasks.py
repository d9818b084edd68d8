"""Task scopes: every task has an owner that awaits its end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from channels.kit.tasks import TaskScope


async def test_a_failing_task_is_logged_and_leaves_the_others_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scope = TaskScope("test")
    done = asyncio.Event()

    async def fail() -> None:
        raise LookupError("gone")

    async def work() -> str:
        await done.wait()
        return "worked"

    with caplog.at_level(logging.ERROR, logger="channels.tasks"):
        failing = scope.spawn(fail(), name="failing")
        working = scope.spawn(work())
        await asyncio.wait([failing])
        await asyncio.sleep(0)
        assert len(scope) == 1
        done.set()
        assert await working == "worked"
    assert "failing" in caplog.text
    assert "LookupError: gone" in caplog.text
    await scope.close()


async def test_close_cancels_and_awaits() -> None:
    scope = TaskScope("test")
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    scope.spawn(stubborn())
    await asyncio.sleep(0)
    await scope.close()
    assert ended == ["cleaned up"]
    assert len(scope) == 0


async def test_a_closed_scope_refuses_tasks() -> None:
    scope = TaskScope("test")
    await scope.close()

    async def late() -> None:
        raise AssertionError("must not run")

    with pytest.raises(RuntimeError, match="'test' is closed"):
        scope.spawn(late())


async def test_join_waits_and_tells_when_time_is_up() -> None:
    scope = TaskScope("test")
    go = asyncio.Event()
    scope.spawn(go.wait())
    assert not await scope.join(0.001)
    go.set()
    assert await scope.join(5)
    assert await scope.join()
    await scope.close()


async def test_on_done_takes_the_place_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    scope = TaskScope("test")
    seen: list[BaseException | None] = []

    async def fail() -> None:
        raise LookupError("gone")

    task = scope.spawn(fail(), on_done=lambda task: seen.append(task.exception()))
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert isinstance(seen[0], LookupError)
    assert not caplog.records


async def test_a_task_may_close_its_own_scope() -> None:
    scope = TaskScope("test")
    other = scope.spawn(asyncio.Event().wait())
    await scope.spawn(scope.close())
    assert other.cancelled()
