"""A thread for blocking jobs: what comes of them, and that nobody waits for one that hangs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from channels.backends.database.threads import WorkThread
from channels.exceptions import TransportDown
from channels.testing.layers.base import soon


async def test_jobs_run_one_after_the_other_on_one_thread_that_ends_after_them() -> None:
    ended = threading.Event()
    thread = WorkThread("t", 10.0, ended.set)
    done: list[int] = []

    def job(number: int) -> int:
        done.append(number)
        return threading.get_ident()

    names = await asyncio.gather(*(thread.do(job, number) for number in range(5)))
    assert done == [0, 1, 2, 3, 4]
    assert len(set(names)) == 1
    with pytest.raises(ZeroDivisionError):
        await thread.do(lambda: 1 / 0)
    await thread.close()
    assert await asyncio.to_thread(ended.wait, 10.0)


async def test_a_job_that_hangs_is_given_up_when_aborted_or_too_long() -> None:
    go_on = threading.Event()
    thread = WorkThread("t", 0.05, lambda: None)
    with pytest.raises(TransportDown, match="silent"):
        await thread.do(go_on.wait)
    patient = WorkThread("t", 10.0, lambda: None)
    waiting = [asyncio.create_task(patient.do(go_on.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    patient.abort()
    for job in waiting:
        with pytest.raises(TransportDown):
            await soon(job)
    with pytest.raises(TransportDown):
        await patient.do(go_on.wait)
    go_on.set()
    for each in (thread, patient):
        await soon(each.close())
