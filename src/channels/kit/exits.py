"""SystemExit and KeyboardInterrupt that an application raises: they end its own work, no more.

asyncio lets both out of the loop, from whichever task or callback raised them, and with them ends
everything else that runs there.  The loop itself is in order afterwards, and so is the task, which
holds the error for whoever awaits it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

logger: Final = logging.getLogger("channels.tasks")


def run_past_exits(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, whatever exits are raised in other tasks and callbacks of the loop.

    Raises:
        SystemExit: If `work` itself raises it.
        KeyboardInterrupt: The same, and where a SIGINT raises it.
    """
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                return task.result()
            if is_interrupt(error):
                raise
            logger.error(
                "%r ended a task or a callback, and nothing else: %s", error, _place(error)
            )


def is_interrupt(error: BaseException) -> bool:
    """True if the error may come from a SIGINT, and not from the code that it was raised in.

    Python raises it wherever the main thread happens to be, unless another handler was installed,
    as servers and asyncio's runners do.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _place(error: BaseException) -> str:
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    if found is None:
        return "at an unknown place"
    code = found.tb_frame.f_code
    return f"at {code.co_filename}:{found.tb_lineno} in {code.co_name}"
