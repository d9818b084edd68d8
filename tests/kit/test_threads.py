"""The pool is bounded, a lane knows when its job has left the thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from channels.exceptions import InvalidOption
from channels.kit.threads import (
    PoolExecutor,
    ThreadOptions,
    _pool,
    configure_threads,
    default_threads,
)


class Gate:
    """A job that says when it began, and ends when it may."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.ended = False

    def __call__(self) -> None:
        self.began.set()
        self.go.wait(10)
        self.ended = True


@pytest.fixture(autouse=True)
def pool_restored() -> Iterator[None]:
    yield
    configure_threads(ThreadOptions())


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("200", 200)])
def test_asgi_threads_sizes_the_pool(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: int
) -> None:
    monkeypatch.setenv("ASGI_THREADS", value)
    assert default_threads() == expected


@pytest.mark.parametrize("value", ["", "0", "-2", "many"])
def test_a_senseless_asgi_threads_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ASGI_THREADS", value)
    assert default_threads() == min(32, (os.cpu_count() or 1) + 4)


def test_the_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_THREADS", "3")
    configure_threads(ThreadOptions(sync_threads=2))
    assert _pool.size == 2


def test_a_pool_has_at_least_one_thread() -> None:
    with pytest.raises(InvalidOption, match="the least is 1"):
        ThreadOptions(sync_threads=0)


async def test_no_more_jobs_run_at_once_than_there_are_threads() -> None:
    configure_threads(ThreadOptions(sync_threads=2))
    go, both = threading.Event(), threading.Barrier(3)
    started: list[int] = []

    def job(number: int) -> None:
        started.append(number)
        if number < 2:
            both.wait(10)
        go.wait(10)

    futures = [PoolExecutor().submit(job, number) for number in range(3)]
    both.wait(10)
    assert sorted(started) == [0, 1]
    go.set()
    for future in futures:
        future.result(10)
    assert sorted(started) == [0, 1, 2]


async def test_settled_waits_until_the_job_has_left_its_thread() -> None:
    lane, job = PoolExecutor(), Gate()
    lane.submit(job)
    job.began.wait(10)
    hurried: list[bool] = []
    waiting = asyncio.create_task(lane.settled(lambda: hurried.append(True)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done(), "a cancellation may not overtake the job"
    assert hurried
    job.go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert job.ended


async def test_settled_withdraws_a_job_that_has_not_begun() -> None:
    configure_threads(ThreadOptions(sync_threads=1))
    busy, lane, job = PoolExecutor(), PoolExecutor(), Gate()
    busy.submit(job)
    job.began.wait(10)
    waiting = lane.submit(lambda: pytest.fail("withdrawn jobs do not run"))
    await lane.settled()
    assert waiting.cancelled()
    job.go.set()
    await busy.settled()


async def test_settled_returns_at_once_without_a_job() -> None:
    await PoolExecutor().settled()


def test_a_job_submitted_before_a_resize_still_runs() -> None:
    go = threading.Event()
    future = PoolExecutor().submit(go.wait, 10)
    configure_threads(ThreadOptions(sync_threads=1))
    go.set()
    assert future.result(10)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    assert PoolExecutor().submit(os.getpid).result(10) == os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(PoolExecutor().submit(os.getpid).result(10)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == str(child)
    os.waitpid(child, 0)


def test_a_job_that_outlives_its_loop_ends_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    gate, lane = Gate(), PoolExecutor()

    async def leave() -> None:
        lane.submit(gate)
        # A job that no thread has taken yet is withdrawn by `settled`.
        gate.began.wait(10)
        with contextlib.suppress(TimeoutError):
            # Its cancellation waits for the job, so it is left behind.
            await asyncio.wait({asyncio.ensure_future(lane.settled())}, timeout=0.05)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    waiting = asyncio.all_tasks(loop)
    loop.close()
    gate.go.set()
    assert lane._last is not None
    lane._last.result(10)
    configure_threads(ThreadOptions())
    assert caplog.records == []
    for task in waiting:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
