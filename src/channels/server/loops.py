"""An event loop for a whole run, that is closed in bounded time.

`asyncio.Runner` waits without a bound for tasks that swallow their cancellation and, by
`shutdown_default_executor`, for threads: neither can be made to end, and both would hold a process
that was told to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

from channels.kit.exits import run_past_exits
from channels.kit.process_exit import Stoppable, process_exit

T = TypeVar("T")

logger: Final = logging.getLogger("channels.tasks")

#: For cancelled tasks and for asynchronous generators, together.
CLOSE_SECONDS: Final = 1.0
#: How often asyncio's own loop turns at least.
TURN_SECONDS: Final = 0.5


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes a loop of uvloop; None where that is not installed."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def call_on(loop: asyncio.AbstractEventLoop | None, call: Callable[[], object]) -> None:
    """Call on a loop, from any thread; at once if there is none yet, not at all if it has ended."""
    if loop is None:
        call()
        return
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


@contextlib.asynccontextmanager
async def layer_on_this_loop(layer: Any) -> AsyncIterator[None]:
    """Let a channel layer do its I/O on the running loop, and close it at the end of the context.

    For a loop that lives as long as the process.  Another package's layer is left as it is.
    """
    is_owner = hasattr(layer, "adopt_loop") and layer.adopt_loop()
    try:
        yield
    finally:
        if is_owner:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(layer.close(), CLOSE_SECONDS)


def run_on_new_loop(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, run in this thread on a loop of its own.

    Signals are handled within `TURN_SECONDS` even if nothing happens.  Tasks that remain are
    cancelled and awaited for `CLOSE_SECONDS`.  Threads of the loop's default executor are left to
    end by themselves.
    """
    runner = asyncio.Runner(loop_factory=loop_factory())
    loop = runner.get_loop()
    try:
        loop.call_soon(_turn, loop)
        return run_past_exits(loop, work)
    finally:
        try:
            runner.run(_end_tasks())
        finally:
            asyncio.set_event_loop(None)
            # Not the runner's `close`: this one does not wait for the default executor.
            loop.close()


def run_until_stopped(
    target: Stoppable, work: Coroutine[Any, Any, None], stop_seconds: float | None
) -> None:
    """Run `work` on a loop of its own; in the main thread signals stop `target` meanwhile.

    Args:
        stop_seconds: As `ProcessExit.serving` takes it.
    """
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(process_exit.serving(target, stop_seconds))
        run_on_new_loop(work)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    # Python runs signal handlers between two steps.  A signal that comes right before asyncio's own
    # loop waits for the system does not end that wait; uvloop is woken by it.
    if isinstance(loop, asyncio.BaseEventLoop):
        loop.call_later(TURN_SECONDS, _turn, loop)


async def _end_tasks() -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CLOSE_SECONDS
    remaining = asyncio.all_tasks() - {asyncio.current_task()}
    for task in remaining:
        task.cancel()
    left = await _wait(remaining, CLOSE_SECONDS)
    for task in remaining - left:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A task failed when cancelled: %s", task.get_name(), exc_info=error)
    if left:
        names = ", ".join(sorted(task.get_name() for task in left))
        logger.error("%d tasks did not end when cancelled: %s.", len(left), names)
    closing = loop.create_task(loop.shutdown_asyncgens())
    await _wait({closing}, max(0.1, deadline - loop.time()))


async def _wait(tasks: set[asyncio.Task[Any]], seconds: float) -> set[asyncio.Task[Any]]:
    """Those that have not ended in time."""
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()
