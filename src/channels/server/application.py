"""One call of the application: its task, its end, and what is said about a bad end.

An application may raise anything, and none of it may reach another connection: not even
`SystemExit` and `KeyboardInterrupt`, which asyncio would let out of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from channels.exceptions import NoRouteFound, is_disconnection, was_logged
from channels.kit.doors import DOOR
from channels.kit.exits import is_interrupt
from channels.kit.printable import printable
from channels.kit.tasks import TaskScope
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Application, Receive, Scope, Send
from channels.server.access_log import client_text
from channels.server.counts import counts

logger: Final = logging.getLogger("django.channels.server")

#: One line in so many seconds: what hangs may hang for thousands of requests.
_unanswered: Final = Throttle(5.0)


class ApplicationCall:
    """The application, called once for a connection or a request.

    Afterwards the server's ways to it are taken out of the scope: scope, door and connection would
    hold each other, and leave every request to the garbage collector.

    Args:
        on_end: Called once at the end, with what the application raised, or None.
    """

    __slots__ = ("_extensions", "_on_end", "_scope", "_task", "_timer")

    def __init__(self, scope: Scope, on_end: Callable[[BaseException | None], None]) -> None:
        self._scope = scope
        self._extensions: dict[str, Any] = scope["extensions"]
        self._on_end: Callable[[BaseException | None], None] | None = on_end
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self,
        application: Application,
        receive: Receive,
        send: Send,
        tasks: TaskScope,
        context: Context,
    ) -> None:
        """Run it in a task of `tasks`, and in this context, which belongs to it alone."""
        work = self._run(application, receive, send)
        self._task = tasks.spawn(work, name="application", context=context)

    async def _run(self, application: Application, receive: Receive, send: Send) -> None:
        error: BaseException | None = None
        try:
            await application(self._scope, receive, send)
        except BaseException as caught:
            if is_interrupt(caught):
                raise
            error = caught
        finally:
            if self._timer is not None:
                self._timer.cancel()
        on_end, self._on_end = self._on_end, None
        assert on_end is not None, "an application ends once"
        on_end(error)
        # Its traceback holds this frame, and those of the application with all their variables.
        del error
        self._extensions.pop(DOOR, None)

    @property
    def is_running(self) -> bool:
        """True until the application has returned or raised."""
        return self._task is not None and not self._task.done()

    def cancel_in(self, seconds: float) -> None:
        """Give it so many seconds to end by itself; a second call changes nothing."""
        task = self._task
        if task is not None and self._timer is None and not task.done():
            self._timer = task.get_loop().call_later(seconds, self._cancel, seconds)

    def _cancel(self, seconds: float) -> None:
        if self._task is not None and self._task.cancel():
            logger.warning(
                "The application was still running %g s after its client had gone and was "
                "cancelled: %s",
                seconds,
                describe(self._scope),
            )


def describe(scope: Scope) -> str:
    """A connection in a few words, for the log; nothing in it can end a line."""
    path = scope["raw_path"].decode("latin-1")
    return f"{scope.get('method', 'WebSocket')} {printable(path)}"


def log_end(scope: Scope, error: BaseException | None, *, complete: bool) -> None:
    """Say once what is to be said about an application's end.

    Args:
        complete: Whether it had done all that it had to do, or its client had gone.
    """
    if isinstance(error, NoRouteFound):
        logger.warning("No route for %s: %s", describe(scope), error)
    elif is_disconnection(error) or (complete and isinstance(error, asyncio.CancelledError)):
        pass  # Its client went or was cut off, or we cancelled it, which has been logged.
    elif error is not None:
        counts.application_failures += 1
        if not was_logged(error):
            logger.error("Exception inside application: %s", describe(scope), exc_info=error)
    elif not complete and scope["type"] == "websocket":
        # Other servers take it without an error; whoever waits for the client is served there.
        logger.warning(
            "The application returned before its WebSocket was closed, which ends it: %s",
            describe(scope),
        )
    elif not complete:
        counts.application_failures += 1
        logger.error("The application returned without a whole response: %s", describe(scope))


def log_surplus(scope: Scope, size: int) -> None:
    """Say that a body was `size` bytes longer than its Content-Length; they were left out."""
    logger.error(
        "The body is %d bytes longer than its Content-Length; they were left out: %s",
        size,
        describe(scope),
    )


def log_unanswered(scope: Scope, seconds: float) -> None:
    """Say that an application has not begun to answer a request after so many seconds."""
    held_back = _unanswered.admit("request")
    if held_back is not None:
        logger.warning(
            "The application has not begun to answer after %g s: %s, from %s%s",
            seconds,
            describe(scope),
            client_text(scope["client"]),
            and_more(held_back),
        )
