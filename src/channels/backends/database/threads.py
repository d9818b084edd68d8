"""A thread that does one blocking job after the other: Django's connections belong to threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from channels.kit.greenlets import make_queue, start_thread

T = TypeVar("T")


class WorkThread:
    """Started with its first job, ended by `end`; a daemon, so that a hung job holds up no exit.

    Args:
        at_end: Run on the thread when it ends.
    """

    def __init__(self, name: str, at_end: Callable[[], None]) -> None:
        self._name = name
        self._at_end = at_end
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = make_queue()
        #: Done when the thread has ended; None before its first job.
        self._ended: Future[None] | None = None
        self._process = os.getpid()

    async def do(self, job: Callable[..., T], *arguments: Any) -> T:
        """Run it there.  A cancelled call leaves the job to end by itself."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = job(*arguments)
            except BaseException as error:
                problem = error
                self._tell(loop, lambda: _fail(answer, problem))
            else:
                self._tell(loop, lambda: _answer(answer, result))

        self._jobs.put(run)
        if self._ended is None:
            self._ended = start_thread(self._run, self._name)
        return await answer

    def end(self) -> None:
        """Let it end after the jobs that it has; in a forked child there is none."""
        if os.getpid() == self._process:
            self._jobs.put(None)

    async def ended(self, seconds: float) -> None:
        """Wait for its end, not for ever."""
        if self._ended is not None:
            await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=seconds)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        with contextlib.suppress(Exception):
            self._at_end()

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback)


def _answer(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
