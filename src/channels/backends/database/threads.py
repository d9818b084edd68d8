"""A thread that does one blocking job after the other: Django's connections belong to threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar

from channels.exceptions import TransportDown
from channels.kit.greenlets import make_queue, start_thread

T = TypeVar("T")

#: What the end of a thread may take.
CLOSE_SECONDS: Final = 0.2


class WorkThread:
    """A daemon, so that a job that hangs delays no exit.

    Args:
        patience: Seconds that a job may take.
        at_end: Run on the thread when it ends.
    """

    def __init__(self, name: str, patience: float, at_end: Callable[[], None]) -> None:
        self._patience = patience
        self._at_end = at_end
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = make_queue()
        self._aborted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = os.getpid()
        self._ended: Future[None] = start_thread(self._run, name)

    async def do(self, job: Callable[..., T], *arguments: Any) -> T:
        """Run it there.

        Raises:
            TransportDown: If it takes too long, or the thread is aborted.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._aborted.done():
            self._jobs.put(partial(_answer, answer, partial(job, *arguments)))
        try:
            await asyncio.wait(
                (answer, self._aborted),
                timeout=self._patience,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
            raise TransportDown(f"the connection was aborted, or silent for {self._patience} s")
        finally:
            answer.cancel()

    def abort(self) -> None:
        """Fail what waits for a job, and who asks for another."""
        if not self._aborted.done():
            self._aborted.set_result(None)

    def abandon(self) -> None:
        """Let it end after the jobs that it has; in a forked child there is none."""
        if os.getpid() == self._process:
            self._jobs.put(None)

    async def close(self) -> None:
        """The same, and wait a moment; if it hangs, its connection's fence keeps it off."""
        self.abandon()
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        with contextlib.suppress(Exception):
            self._at_end()


def _answer(answer: asyncio.Future[T], job: Callable[[], T]) -> None:
    """Do a job, and have its outcome told on the loop that waits, unless that is closed."""
    try:
        tell = partial(_settle, answer, answer.set_result, job())
    except BaseException as error:
        tell = partial(_settle, answer, answer.set_exception, error)
    with contextlib.suppress(RuntimeError):
        answer.get_loop().call_soon_threadsafe(tell)


def _settle(answer: asyncio.Future[T], settle: Callable[[Any], None], outcome: Any) -> None:
    if not answer.done():
        settle(outcome)
