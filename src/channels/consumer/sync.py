"""The consumer whose handlers are plain methods, run on threads.

Handlers of different connections run in parallel on the process's bounded pool; those of one
connection in order.  Inside the testing communicators they run where the test's database connection
is, as asgiref's thread-sensitive mode has it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

from asgiref.sync import async_to_sync

from channels.consumer.base import ENDS, AsyncConsumer, outbound
from channels.consumer.handlers import find_handler
from channels.db import DatabaseSyncToAsync, keeps_connections
from channels.exceptions import ClientDisconnected
from channels.kit.threads import PoolExecutor
from channels.kit.types import Message, Send


class SyncConsumer(AsyncConsumer):
    """Handles the events of one connection with plain methods named after their types.

    A handler calls coroutine functions, the layer's for example, through `async_to_sync`.
    """

    _sync: ClassVar[bool] = True
    _lane: PoolExecutor | None = None
    #: Runs a handler; made once, because asgiref's wrapper costs as much as a call through it.
    _run: DatabaseSyncToAsync[[Message], None] | None = None
    #: What the handler raised, from its thread to `dispatch`.
    _raised: BaseException | None = None
    _waits: Sequence[asyncio.Task[Any]] = ()

    async def dispatch(self, message: Message) -> None:
        """Run the handler of a message on a thread.

        Cancel safety: code of the handler that waits in `async_to_sync` is cancelled; code that
        blocks is waited for, so that no second handler of the connection runs beside it.
        """
        try:
            if keeps_connections.get():
                await DatabaseSyncToAsync(self._run_handler)(message)
            else:
                await self._run_in_pool(message)
        finally:
            error, self._raised = self._raised, None
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback holds this frame.
                del error

    async def _run_in_pool(self, message: Message) -> None:
        if self._run is None or self._lane is None:
            self._lane = PoolExecutor()
            # Typed as ThreadPoolExecutor in asgiref; any executor does.
            lane = cast(ThreadPoolExecutor, self._lane)
            self._run = DatabaseSyncToAsync(
                self._run_handler, thread_sensitive=False, executor=lane
            )
        try:
            await self._run(message)
        except asyncio.CancelledError:
            await self._lane.settled(self._cancel_waits)
            raise

    async def _leave(self) -> None:
        # It refers to this consumer: without it nothing is left for the garbage collector.
        self._run = None
        await super()._leave()

    def _cancel_waits(self) -> None:
        """Cancel what the handler awaits by now: asgiref did so with what it awaited before."""
        for task in list(self._waits):
            task.cancel()

    def _run_handler(self, message: Message) -> None:
        """Call the handler, in its thread, and note what it raised.

        The future between thread and loop would keep it, and by its traceback the message and this
        consumer, until the garbage collector comes.
        """
        # The tasks by which asgiref runs what this thread calls through async_to_sync.
        self._waits = getattr(DatabaseSyncToAsync.threadlocal, "task_context", ())
        try:
            self._call_handler(message)
        except BaseException as error:
            self._raised = error

    def _call_handler(self, message: Message) -> None:
        if self._is_frame(message):
            if not self._closed:
                SyncConsumer.send(self, outbound(message))
            return
        call_plain(find_handler(self, message, self._verbs), message)

    def send(self, message: Message) -> None:  # type: ignore[override]  # the sync form of it
        """Send an ASGI event to the server; returns when the server has taken it.

        Raises:
            ClientDisconnected: If the client has gone; uncaught, it leads to `disconnect`.
        """
        if message.get("type") in ENDS:
            self._closed = True
        try:
            self.base_send(message)
        # asgiref's future has the error, and is a variable in a frame of its traceback: it would
        # keep the message that is being handled until the garbage collector comes.
        except ClientDisconnected as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error
        except OSError as error:
            raise ClientDisconnected(str(error)) from error.with_traceback(None)

    def _sender(self, send: Send) -> Callable[[Message], Any]:
        if inspect.iscoroutinefunction(send):
            return async_to_sync(send)

        # ASGI promises an awaitable, asgiref wants a coroutine function.
        async def call(message: Message) -> None:
            await send(message)

        return async_to_sync(call)


def call_plain(method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a method that should be a plain one.

    Raises:
        TypeError: If it is a coroutine function; nothing would ever run what it gave.
    """
    result = method(*args, **kwargs)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(
            f"{getattr(method, '__qualname__', method)} is a coroutine function: write `def`, or "
            "subclass an async consumer."
        )
