"""Tasks that belong to someone: whoever starts one also awaits its end.

A `TaskScope` differs from `asyncio.TaskGroup` in one point: a failing task does not cancel the
others.  That is what a server needs, where each task is another client's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

logger = logging.getLogger("channels.tasks")


class TaskScope:
    """A set of tasks with one end.

    Close order: `close` cancels what still runs, then awaits all of it.  An error that nobody
    awaited is logged with its traceback when its task ends.

    Args:
        loop: Where the tasks run; None for the one that runs when a task is started, which it takes
            a system call to find out.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.name = name
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self,
        work: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        on_done: Callable[[asyncio.Task[Any]], None] | None = None,
    ) -> asyncio.Task[Any]:
        """Start a task in this scope.

        Args:
            on_done: Called with the ended task in place of logging its error.

        Raises:
            RuntimeError: If the scope is closed already; the coroutine is closed unstarted.
        """
        if self._closed:
            work.close()
            raise RuntimeError(f"The task scope {self.name!r} is closed.")
        loop = self._loop or asyncio.get_running_loop()
        task = loop.create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._forget if on_done is None else self._tasks.discard)
        if on_done is not None:
            task.add_done_callback(on_done)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A task of %s failed: %s", self.name, task.get_name(), exc_info=error)

    async def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all tasks ended by themselves; False if some still run after the timeout."""
        deadline = None
        loop = asyncio.get_running_loop()
        if timeout_seconds is not None:
            deadline = loop.time() + timeout_seconds
        while self._tasks:
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait(self._tasks, timeout=left)
        return True

    async def close(self) -> None:
        """Cancel every task and await its end; tasks that start later are refused."""
        self._closed = True
        me = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not me]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
