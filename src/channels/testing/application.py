"""Runs an application in a test: what goes in, what comes out."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db.backends.base.base import BaseDatabaseWrapper

from channels.db import in_transactions, keeps_connections, use_connections
from channels.kit.types import Message, Scope

if TYPE_CHECKING:

    class Communicator:
        """The types that asgiref's class lacks."""

        application: Any
        scope: Scope
        input_queue: asyncio.Queue[Message]
        output_queue: asyncio.Queue[Message]

        def __init__(self, application: Any, scope: Scope) -> None: ...
        def stop(self, exceptions: bool = True) -> None: ...
        async def wait(self, timeout: float = 1) -> None: ...
        async def send_input(self, message: Message) -> None: ...
        async def receive_output(self, timeout: float = 1) -> Message: ...
        async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool: ...

else:
    from asgiref.testing import ApplicationCommunicator as Communicator


class ApplicationCommunicator(Communicator):
    """asgiref's communicator, for applications that use the database.

    The application's sync code uses the test's connection, in whatever thread, and that connection
    is not closed behind the test's back: what the test saved, the application sees, and the
    reverse, even if all of it is one transaction.
    """

    # Here too, for one whose constructor has refused its arguments and that is collected then.
    _future: asyncio.Future[Any] | None = None

    @property
    def future(self) -> asyncio.Future[Any]:
        """The application's task, started at first use."""
        if self._future is None:
            # An empty context, as a server would give it, but for what holds in tests.
            context = contextvars.Context()
            context.run(keeps_connections.set, True)
            work = self.application(self.scope, self.input_queue.get, self.output_queue.put)
            if lent := in_transactions():
                # Plugins run a test's coroutine in the thread of its transaction, asgiref sync code
                # in another: only Django's TestCase has both in one.
                work = _lending(lent, work)
            self._future = asyncio.get_running_loop().create_task(work, context=context)
        return self._future

    async def receive_output(self, timeout: float = 1) -> Message:
        """The next event that the application sends.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            TimeoutError: If there was none; the application is cancelled then.
            BaseException: What the application raised, as soon as it has.
        """
        if self.output_queue.empty() and not self.future.done():
            said = asyncio.ensure_future(self.output_queue.get())
            try:
                await asyncio.wait(
                    {said, self.future}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if said.done():
                    return said.result()
            finally:
                said.cancel()
            timeout = 0
        return await super().receive_output(timeout)

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application if it still runs.

        Args:
            exceptions: Whether to raise what the application raised, if it has ended.
        """
        future = self._future
        if not exceptions and future is not None and future.done() and not future.cancelled():
            # Looked at, so that asyncio does not complain of it when the task is collected.
            future.exception()
        super().stop(exceptions)


async def _lending(lent: list[BaseDatabaseWrapper], work: Awaitable[Any]) -> Any:
    await sync_to_async(use_connections)(lent)
    return await work
