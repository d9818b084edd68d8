"""A thread that does one blocking job after the other: Django's connections belong to threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from channels.exceptions import TransportDown
from channels.kit.greenlets import make_queue, start_thread

T = TypeVar("T")


class WorkThread:
    """A daemon, so that a hung job holds up no exit.

    Args:
        patience: Seconds that a job may take.
        at_end: Run on the thread when it ends.
    """

    def __init__(self, name: str, patience: float, at_end: Callable[[], None]) -> None:
        self._patience = patience
        self._at_end = at_end
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = make_queue()
        self._answers: set[asyncio.Future[Any]] = set()
        self._is_aborted = False
        self._process = os.getpid()
        self._ended: Future[None] = start_thread(self._run, name)

    async def do(self, job: Callable[..., T], *arguments: Any) -> T:
        """Run it there.

        Raises:
            TimeoutError: If it takes too long.
            TransportDown: If the thread is aborted.
        """
        if self._is_aborted:
            raise TransportDown("the connection was aborted")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            outcome: Future[T] = Future()
            try:
                outcome.set_result(job(*arguments))
            except BaseException as error:
                outcome.set_exception(error)
            # The loop may have been closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, answer, outcome)

        self._answers.add(answer)
        self._jobs.put(run)
        try:
            async with asyncio.timeout(self._patience):
                return await answer
        finally:
            self._answers.discard(answer)

    def abort(self) -> None:
        """Fail what waits for a job, and who asks for another."""
        self._is_aborted = True
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(TransportDown("the connection was aborted"))

    def end(self) -> None:
        """Let it end after the jobs that it has; in a forked child there is none."""
        if os.getpid() == self._process:
            self._jobs.put(None)

    async def ended(self, seconds: float) -> None:
        """Wait for its end, not for ever."""
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=seconds)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        with contextlib.suppress(Exception):
            self._at_end()


def _settle(answer: asyncio.Future[T], outcome: Future[T]) -> None:
    if answer.done():
        return
    error = outcome.exception()
    if error is None:
        answer.set_result(outcome.result())
    else:
        answer.set_exception(error)
