"""An idle consumer's handlers, driven in place, as the task that they belong to.

To wake a task takes a future, a handle of the loop, and a walk down all coroutines from the server
to the consumer, whose frames have left the processor's cache by then: nearly half of a delivery to
1,000 consumers.  So an idle consumer's task is parked, and its events are handled from a callback
of the loop, under the task's name and in its context.  One that has to wait goes on from the
callback of what it waits for.  The task gets a handler that is cancelled, and all that ends the
consumer.  A handler cannot tell the difference: the current task, its context variables, timeouts,
cancellation and errors are the same.

`asyncio._enter_task` and `_leave_task` are documented for this ("Extending asyncio");
`_asyncio_future_blocking` is how an awaited future and whoever drives the coroutine agree.
"""

from __future__ import annotations

import asyncio
import time
import types
from asyncio import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from channels.consumer.line import Line
from channels.kit.limits import STRETCH_MS
from channels.kit.types import Message

#: A handler's coroutine; its result is False if the consumer ends with it.
Handling: TypeAlias = Coroutine[Any, Any, bool]

_STRETCH_SECONDS: Final = STRETCH_MS / 1000
#: How many consumers are served between two looks at the clock.
_STRIDE: Final = 16

_mark: ContextVar[object] = ContextVar("channels.consumer.mark")


def is_current(context: Context) -> bool:
    """True if the running code's context variables are those of `context`, not a copy."""
    mark = object()
    token = _mark.set(mark)
    try:
        return context.get(_mark) is mark
    finally:
        _mark.reset(token)


class Turn:
    """The drivers of one loop that have an event: one callback for all, in order of arrival.

    Each handles one event, so that between two of one consumer the loop turns: what the first has
    started, a task for example, begins before the second.
    """

    __slots__ = ("__weakref__", "_due", "_is_ending", "context")

    #: Loop -> its turn.
    of: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Turn]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._due: list[Driver] = []
        self._is_ending = False
        #: For callbacks of the loop: that of whoever makes them belongs to another client.
        self.context = Context()

    def add(self, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        """Let a driver handle its next event once this turn of its loop is over."""
        due = self._due
        due.append(driver)
        if len(due) == 1 and not self._is_ending:
            loop.call_soon(self._end, loop, due, context=self.context)

    def fence(self) -> None:
        """Let drivers that are added from now on wait for all that is scheduled by now."""
        if self._due:
            self._due = []

    def _end(self, loop: asyncio.AbstractEventLoop, due: list[Driver]) -> None:
        """Handle what has arrived; the next turn has what arrives meanwhile, and what is left."""
        self._due = []
        until = time.monotonic() + _STRETCH_SECONDS if len(due) > _STRIDE else 0.0
        done = 0
        self._is_ending = True
        try:
            for driver in due:
                done += 1
                driver.drive()
                if done % _STRIDE == 0 and time.monotonic() >= until:
                    break
        finally:
            self._is_ending = False
            self._due[:0] = due[done:]
            if self._due:
                # Only now: behind all that the handlers have scheduled.
                loop.call_soon(self._end, loop, self._due, context=self.context)


class Driver:
    """Takes the place of waiting for events and awaiting their handlers.

    Belongs to the task and the context that it is made in.

    Args:
        handle: Makes the coroutine that handles an event.
        context: The task's own, not a copy.
    """

    __slots__ = (
        "_begun",
        "_context",
        "_failure",
        "_goes_on",
        "_handle",
        "_line",
        "_loop",
        "_mailbox",
        "_parked",
        "_task",
        "_turn",
    )

    def __init__(self, line: Line, handle: Callable[[Message], Handling], context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None, "a consumer runs in a task"
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._turn = Turn.of.setdefault(self._loop, Turn())
        self._line = line
        self._mailbox = line.mailbox
        self._handle = handle
        self._context = context
        #: What the parked task waits for.
        self._parked: asyncio.Future[None] | None = None
        #: The handler that waits, and for what.
        self._begun: tuple[Handling, Any] | None = None
        # What is left for the task to do with the event that ended its rest.
        self._failure: BaseException | None = None
        self._goes_on = True

    async def step(self) -> bool:
        """See to the next events, at least one; False if a handler ended the consumer.

        Raises:
            BaseException: What a handler raised.
        """
        event = self._mailbox.get_nowait()
        if event is not None:
            self._line.handling = event
            return await self._handle(event)
        # A handler that has ended in the task may have scheduled something.
        self._turn.fence()
        parked = self._parked = self._loop.create_future()
        self._mailbox.on_event = self._has_event
        try:
            await parked
        except asyncio.CancelledError as error:
            if self._begun is None:
                raise
            # A handler waits: it is the handler's.
            return await self._go_on(error)
        finally:
            self._parked = self._mailbox.on_event = None
        return await self._go_on()

    async def _go_on(self, cancelled: asyncio.CancelledError | None = None) -> bool:
        begun, self._begun = self._begun, None
        if begun is not None:
            handling, waiting = begun
            if self._is_ours(waiting):
                waiting._asyncio_future_blocking = True
                # As `Task.cancel` does it: the cancellation reaches what is waited for.
                if cancelled is not None and waiting.cancel(*cancelled.args):
                    cancelled = None
            return await _carry_on(handling, waiting, cancelled)
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                # Its traceback holds this frame: nothing is left for the garbage collector.
                del failure
        return self._goes_on

    def _has_event(self) -> None:
        self._turn.add(self, self._loop)

    def drive(self) -> None:
        """Handle the next event, unless one is being handled."""
        parked = self._parked
        if parked is None or parked.done() or self._begun is not None:
            return
        event = self._mailbox.get_nowait()
        self._line.handling = event
        if event is None or self._advance(parked, self._handle(event)):
            self._rest()

    def _rest(self) -> None:
        """The event is handled: wait for the next one."""
        self._line.handling = None
        if self._mailbox.settle():
            self._has_event()
        else:
            self._mailbox.on_event = self._has_event

    def _advance(self, parked: asyncio.Future[None], handling: Handling) -> bool:
        """Drive a handler, in the task's name, to its next wait; True if it has ended.

        False too if something is left for the task to do.
        """
        _enter_task(self._loop, self._task)
        try:
            waiting = self._context.run(handling.send, None)
        except StopIteration as stop:
            if stop.value and not self._mailbox.gone:
                return True
            self._goes_on = stop.value
        except BaseException as error:
            self._failure = error
        else:
            self._begun = handling, waiting
            if self._wait_for(waiting):
                return False
        finally:
            _leave_task(self._loop, self._task)
        if not parked.done():
            parked.set_result(None)
        return False

    def _wait_for(self, waiting: Any) -> bool:
        """Go on when a handler's wait is over; False if it waits for nothing that a loop knows."""
        if waiting is None:
            # As `asyncio.sleep(0)`: a turn of the loop.
            self._loop.call_soon(self._resume, None, context=self._turn.context)
            return True
        if not self._is_ours(waiting):
            return False
        waiting._asyncio_future_blocking = False
        waiting.add_done_callback(self._resume, context=self._turn.context)
        return True

    def _is_ours(self, waiting: Any) -> bool:
        """True for a future that may be waited for here; of others the task says what is wrong."""
        is_future = isinstance(waiting, asyncio.Future) and waiting.get_loop() is self._loop
        return is_future and waiting is not self._task

    def _resume(self, waited: asyncio.Future[Any] | None) -> None:
        """Go on with the handler, unless the task has it by now, or is about to."""
        begun, parked = self._begun, self._parked
        if begun is None or begun[1] is not waited or parked is None or parked.done():
            return
        self._begun = None
        if self._advance(parked, begun[0]):
            # What comes now is handled after all that this handler has scheduled.
            self._turn.fence()
            self._rest()


@types.coroutine
def _carry_on(
    handling: Handling, waiting: Any, error: BaseException | None
) -> Generator[Any, Any, bool]:
    """Go on with a coroutine that has yielded `waiting`, inside the task that awaits this.

    Args:
        error: What it is to raise at once, in place of waiting.
    """
    while True:
        value = None
        if error is None:
            try:
                value = yield waiting
            except BaseException as caught:
                error = caught
        thrown, error = error, None
        try:
            waiting = handling.send(value) if thrown is None else handling.throw(thrown)
        except StopIteration as stop:
            return bool(stop.value)
