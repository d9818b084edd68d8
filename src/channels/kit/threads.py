"""The threads that run sync handlers: one bounded pool per process.

A consumer submits one job at a time, so the pool's queue is bounded by the number of connections.
Jobs of one caller go through a `PoolExecutor`, which knows whether the last of them has ended: a
thread cannot be cancelled, only waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from channels.kit.options import check_options, option

P = ParamSpec("P")
T = TypeVar("T")

#: The variable by which deployments of asgiref-based servers size their thread pool.
THREADS_VARIABLE: Final = "ASGI_THREADS"


def default_threads() -> int:
    """As many threads as ASGI_THREADS says, else four more than processors, at most 32."""
    asked = os.environ.get(THREADS_VARIABLE, "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return min(32, (os.cpu_count() or 1) + 4)


@dataclass(frozen=True, slots=True)
class ThreadOptions:
    """How many sync handlers run at once in one process."""

    sync_threads: int | None = option(
        None,
        unit="threads",
        minimum=1,
        none="ASGI_THREADS, else four more than processors and at most 32",
        help="threads that run sync consumers and handlers",
    )

    def __post_init__(self) -> None:
        check_options(self)


class _Pool:
    """The process's pool, made at first use and made anew after a fork."""

    def __init__(self) -> None:
        self.options = ThreadOptions()
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int:
        return self.options.sync_threads or default_threads()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        # Under the lock, so that a pool that is being replaced takes no more work.
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.size, thread_name_prefix="channels-sync")
            return self._executor.submit(work, *args, **kwargs)

    @property
    def waiting(self) -> int:
        executor = self._executor
        return 0 if executor is None else executor._work_queue.qsize()

    def resize(self, options: ThreadOptions) -> None:
        with self._lock:
            self.options = options
            before, self._executor = self._executor, None
        if before is not None:
            before.shutdown(wait=False)

    def forget(self) -> None:
        """Drop what a fork copied: the threads themselves stayed in the parent."""
        self._lock = threading.Lock()
        self._executor = None


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.forget)


def configure_threads(options: ThreadOptions) -> None:
    """Set the pool's size; jobs that run or wait already are finished by the former pool."""
    _pool.resize(options)


def waiting_jobs() -> int:
    """How many jobs wait for a thread of the pool."""
    return _pool.waiting


class PoolExecutor(Executor):
    """One caller's way into the shared pool: an executor without threads of its own.

    It hands each job to the pool and keeps the last one's future, for `settled`.
    """

    def __init__(self) -> None:
        self._last: Future[Any] | None = None

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `work` on a thread of the pool."""
        future = _pool.submit(work, *args, **kwargs)
        self._last = future
        return future

    async def settled(self, hurry: Callable[[], None] | None = None) -> None:
        """Wait until the last job has left its thread, or will never begin.

        Cancel safety: a cancellation is delivered after the job has ended, because whoever comes
        next relies on it.

        Args:
            hurry: Called for each cancellation while the job still runs.
        """
        last = self._last
        if last is None or last.cancel() or last.done():
            return
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        last.add_done_callback(lambda _: _tell(loop, ended))
        cancelled: asyncio.CancelledError | None = None
        while not ended.done():
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError as error:
                cancelled = error
                if hurry is not None:
                    hurry()
        if cancelled is not None:
            raise cancelled


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
    # A loop that was closed meanwhile needs no telling.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_set, ended)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
