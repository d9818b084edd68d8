"""What could not be sent yet: kept in order, tried again when the transport is back.

The outbox belongs to the owner loop.  While the transport is up and nothing waits, an operation
runs at once, beside others.  One that meets `TransportDown` takes its place in the line by the
order in which it was submitted; the line is worked off one by one, so that order survives a
reconnect.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from channels.exceptions import ChannelLayerUnavailable, TransportDown

T = TypeVar("T")


class _Waiting:
    __slots__ = ("answer", "operation", "order", "size")

    def __init__(
        self,
        order: int,
        size: int,
        operation: Callable[[], Awaitable[Any]],
        answer: asyncio.Future[Any],
    ) -> None:
        self.order = order
        self.size = size
        self.operation = operation
        self.answer = answer


class Outbox:
    """Operations on a transport that comes and goes.

    Args:
        send_timeout: Seconds that an operation may wait.
        max_waiting: Operations that may wait at a time.
        max_waiting_bytes: Bytes that these may hold.
    """

    def __init__(self, send_timeout: float, max_waiting: int, max_waiting_bytes: int) -> None:
        self.send_timeout = send_timeout
        self.max_waiting = max_waiting
        self.max_waiting_bytes = max_waiting_bytes
        #: Operations that were sent again after a failure, and that were given up.
        self.replayed = 0
        self.given_up = 0
        self._order = itertools.count()
        self._line: list[_Waiting] = []
        self._bytes = 0
        self._is_open = False
        self._openings = 0
        self._worker: asyncio.Task[None] | None = None
        self._openers: list[asyncio.Future[None]] = []

    @property
    def is_open(self) -> bool:
        """True while the transport is up."""
        return self._is_open

    def __len__(self) -> int:
        return len(self._line)

    def open(self) -> None:
        """The transport is up: work off the line."""
        self._is_open = True
        self._openings += 1
        for waiter in self._openers:
            if not waiter.done():
                waiter.set_result(None)
        self._openers.clear()
        self._work()

    def shut(self) -> None:
        """The transport is down: operations wait from now on."""
        self._is_open = False

    async def wait_open(self, timeout_seconds: float) -> bool:
        """Until the transport is up; False if that takes longer."""
        if self._is_open:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._openers.append(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter in self._openers:
                self._openers.remove(waiter)
        return True

    async def close(self) -> None:
        """End the work; who still waits gets `ChannelLayerUnavailable`."""
        self.shut()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.cancel()
            await asyncio.wait([worker])
        for waiting in self._line:
            if not waiting.answer.done():
                waiting.answer.set_exception(ChannelLayerUnavailable("The layer was closed."))
        self._line.clear()
        self._bytes = 0

    async def submit(self, size: int, operation: Callable[[], Awaitable[T]]) -> T:
        """Carry out an operation on the transport, now or when it is back.

        Args:
            size: Bytes that it holds while it waits.
            operation: Called again if it raised `TransportDown`.

        Raises:
            ChannelLayerUnavailable: If it was not done within `send_timeout`, or the line is full.
                It may have been carried out nevertheless, if the connection broke meanwhile.
        """
        order = next(self._order)
        try:
            async with asyncio.timeout(self.send_timeout):
                if self._is_open and not self._line:
                    opening = self._openings
                    try:
                        return await operation()
                    except TransportDown:
                        # Unless it has come back already, while this task was waking up.
                        if opening == self._openings:
                            self.shut()
                return await self._wait_in_line(order, size, operation)
        except TimeoutError:
            self.given_up += 1
            raise ChannelLayerUnavailable(
                f"The channel layer's backend could not be reached within send_timeout="
                f"{self.send_timeout} s."
            ) from None

    async def _wait_in_line(
        self, order: int, size: int, operation: Callable[[], Awaitable[T]]
    ) -> T:
        if len(self._line) >= self.max_waiting or self._bytes + size > self.max_waiting_bytes:
            self.given_up += 1
            raise ChannelLayerUnavailable(
                f"The channel layer's backend is out of reach and {len(self._line)} operations of "
                f"{self._bytes} bytes wait for it already (replay_messages={self.max_waiting}, "
                f"replay_bytes={self.max_waiting_bytes})."
            )
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(order, size, operation, answer)
        bisect.insort(self._line, waiting, key=lambda each: each.order)
        self._bytes += size
        self._work()
        try:
            return await answer
        finally:
            self._leave_line(waiting)

    def _leave_line(self, waiting: _Waiting) -> None:
        if waiting in self._line:
            self._line.remove(waiting)
            self._bytes -= waiting.size

    def _work(self) -> None:
        if self._is_open and self._line and (self._worker is None or self._worker.done()):
            self._worker = asyncio.get_running_loop().create_task(self._work_off())

    async def _work_off(self) -> None:
        """Operations stay in the line while they run, so that later ones queue behind."""
        while self._is_open and self._line:
            waiting = self._line[0]
            opening = self._openings
            try:
                # Who waits has given up by then; the line must not stand still behind it.
                async with asyncio.timeout(self.send_timeout):
                    result = await waiting.operation()
            except TransportDown:
                if opening == self._openings:
                    self.shut()
                continue
            except Exception as error:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            else:
                if not waiting.answer.done():
                    waiting.answer.set_result(result)
            self.replayed += 1
            self._leave_line(waiting)
