"""The application is told of start and stop: ASGI lifespan specification 2.0.

An application that knows nothing of it raises, or returns, before it says that it has started;
then it is served without.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Any, Final

from channels.exceptions import LocalProtocolError, StartupFailed
from channels.kit.tasks import TaskScope
from channels.kit.types import Application, Message, Scope

#: How long a startup may last before the log says what the server is waiting for.
NOTICE_SECONDS: Final = 5.0

logger: Final = logging.getLogger("django.channels.server")

SPEC_VERSION: Final = "2.0"

#: Message type -> (is it about the start, did it go well).
_ANSWERS: Final = {
    "lifespan.startup.complete": (True, True),
    "lifespan.startup.failed": (True, False),
    "lifespan.shutdown.complete": (False, True),
    "lifespan.shutdown.failed": (False, False),
}


class Lifespan:
    """One run of the application, from `startup` to `shutdown`."""

    def __init__(self, application: Application, *, is_required: bool = False) -> None:
        self._application = application
        self._is_required = is_required
        self.tasks = TaskScope("the lifespan")
        #: What the application keeps for its scopes; None until it has started.
        self.state: dict[str, Any] | None = None
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[str | None] = loop.create_future()
        self._stopped: asyncio.Future[str | None] = loop.create_future()
        self._events: asyncio.Queue[Message] = asyncio.Queue(2)
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self, context: Context, timeout_seconds: float | None = None) -> None:
        """Tell the application to start, and wait until it has.

        An application that neither answers nor ends, because it takes every scope for a
        connection, is cancelled after the timeout and served without.

        Raises:
            StartupFailed: If it says that it cannot, or does not take part and must.
        """
        state: dict[str, Any] = {}
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
            "state": state,
        }
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = self.tasks.spawn(
            self._run(scope), name="lifespan", context=context.copy(), on_done=self._on_ended
        )
        await self._wait_for_start(self._task, timeout_seconds)
        if not self._started.done():
            self._without(self._task, timeout_seconds)
            return
        failure = self._started.result()
        if failure is not None:
            await asyncio.wait({self._task}, timeout=1)
            raise StartupFailed(f"The application failed to start: {failure}")
        self.state = state

    async def _wait_for_start(self, task: asyncio.Task[None], seconds: float | None) -> None:
        notice = NOTICE_SECONDS if seconds is None else min(NOTICE_SECONDS, seconds)
        await _first_of(task, self._started, notice)
        if seconds == notice or task.done() or self._started.done():
            return
        bound = "" if seconds is None else f" for at most {seconds:g} s"
        logger.warning("Waiting%s for the application to answer lifespan.startup.", bound)
        await _first_of(task, self._started, None if seconds is None else seconds - notice)

    def _without(self, task: asyncio.Task[None], seconds: float | None) -> None:
        if not task.done():
            task.cancel()
            said = f"The application did not answer lifespan.startup within {seconds:g} s"
            if self._is_required:
                raise StartupFailed(f"{said}.")
            logger.warning("%s; serving without.", said)
            return
        error = task.exception()
        if self._is_required:
            raise StartupFailed("The application does not take part in lifespan.") from error
        if error is not None and self._asked:
            # It listened, so it may have meant to start: not to be passed over in silence.
            logger.warning(
                "Exception in the application's startup; serving without.", exc_info=error
            )
        else:
            logger.debug("The application does not take part in lifespan: %r", error)

    async def shutdown(self, timeout_seconds: float) -> None:
        """Tell the application to stop, and give it so much time."""
        if self.state is None or self._task is None or self._task.done():
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await _first_of(self._task, self._stopped, timeout_seconds)
        if self._stopped.done():
            if (failure := self._stopped.result()) is not None:
                logger.error("The application failed to stop: %s", failure)
        elif not self._task.done():
            logger.warning("The application did not stop within %g s.", timeout_seconds)

    async def _run(self, scope: Scope) -> None:
        try:
            await self._application(scope, self._receive, self._send)
        except (SystemExit, KeyboardInterrupt) as error:
            # Raised from a task, they would end the server's loop.
            raise RuntimeError(f"The application raised {error!r} in its lifespan.") from error

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # An error before its answer, or after it said that it failed, is `startup`'s to tell.
        has_started = self._started.done() and self._started.result() is None
        if error is not None and has_started:
            logger.error("Exception in the application's lifespan after startup", exc_info=error)

    async def _receive(self) -> Message:
        self._asked = True
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind not in _ANSWERS:
            raise LocalProtocolError(
                f"Message type {kind!r}: expected one of {', '.join(_ANSWERS)}."
            )
        is_start, went_well = _ANSWERS[kind]
        future = self._started if is_start else self._stopped
        if future.done() or not (is_start or self._started.done()):
            raise LocalProtocolError(f"{kind} came at the wrong time.")
        future.set_result(None if went_well else str(message.get("message", "")) or "no reason")


async def _first_of(
    task: asyncio.Future[None], answer: asyncio.Future[str | None], seconds: float | None = None
) -> None:
    both: set[asyncio.Future[Any]] = {task, answer}
    await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
