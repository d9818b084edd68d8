"""What could not be sent yet: kept in order, tried again when the transport is back.

The outbox belongs to the owner loop.  While the transport is up and nothing waits, an operation
runs at once, beside others.  One that meets `TransportDown` takes its place in the line, by the
order in which it was submitted, and all that come later queue behind it.

When the transport is back, and every operation that was under way when it went has been heard of,
the line is let go: each operation starts in its own task, in order, without waiting for the one
before, since a transport takes their order before their first await.  An operation leaves the line
as it starts, so the line is gone after a turn of the loop, however fast others come.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.kit.deadlines import Deadline, SharedTimeout

T = TypeVar("T")


class Outbox:
    """Operations on a transport that comes and goes.

    Args:
        send_timeout: Seconds that an operation may take, its wait included.
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
        #: Why the backend is out of reach, without secrets; "": it is not, or nobody knows.
        self.cause = ""
        #: True while the transport is up.
        self.is_open = False
        self._deadlines = SharedTimeout(send_timeout)
        self._numbers = itertools.count()
        #: The numbers of those who wait, in the order of submission.
        self._line: dict[int, None] = {}
        self._bytes = 0
        #: Set when operations may start.
        self._free = asyncio.Event()
        self._is_closed = False
        #: How often the transport went down.
        self._failures = 0
        #: Operations under way, and those of them that were so when the transport last went down.
        self._started = 0
        self._unheard = 0

    def __len__(self) -> int:
        return len(self._line)

    def open(self) -> None:
        """The transport is up: let the line go."""
        self.is_open = True
        self.cause = ""
        self._let_go()

    def shut(self) -> None:
        """The transport is down: operations wait from now on."""
        if self.is_open:
            self.is_open = False
            self._free.clear()
            self._failures += 1
            self._unheard = self._started

    def _let_go(self) -> None:
        if self.is_open and not self._unheard:
            self._free.set()

    async def wait_open(self, timeout_seconds: float) -> bool:
        """Until the transport is up; False if that takes longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._free.wait()
        return self.is_open

    def close(self) -> None:
        """Who waits, or comes to wait, gets `ChannelLayerUnavailable`."""
        self.shut()
        self._is_closed = True
        self._free.set()

    async def submit(self, size: int, operation: Callable[[], Awaitable[T]]) -> T:
        """Carry out an operation on the transport, now or when it is back.

        Args:
            size: Bytes that it holds while it waits.
            operation: Called again if it raised `TransportDown`.

        Raises:
            ChannelLayerUnavailable: If it was not done within `send_timeout`, or the line is full.
                It may have been carried out nevertheless, if the connection broke meanwhile.
        """
        number = next(self._numbers)
        try:
            with Deadline(self._deadlines) as deadline:
                if self._line or not self._free.is_set() or self._is_closed:
                    await self._wait_in_line(number, size)
                while True:
                    failures = self._failures
                    self._started += 1
                    try:
                        return await operation()
                    except TransportDown:
                        # Unless it has come back already, while this task was waking up.
                        if failures == self._failures:
                            self.shut()
                        if deadline.is_over:
                            raise TimeoutError from None
                    finally:
                        self._started -= 1
                        if failures != self._failures:
                            self._unheard -= 1
                            self._let_go()
                    await self._wait_in_line(number, size)
                    self.replayed += 1
        except TimeoutError:
            self.given_up += 1
            raise ChannelLayerUnavailable(
                f"The channel layer's backend could not be reached within send_timeout="
                f"{self.send_timeout} s{f': {self.cause}'.rstrip('.') if self.cause else ''}."
            ) from None

    async def _wait_in_line(self, number: int, size: int) -> None:
        """Until the operation may start, which it must do without waiting again."""
        if self._is_closed:
            raise ChannelLayerUnavailable("The layer was closed.")
        if len(self._line) >= self.max_waiting or self._bytes + size > self.max_waiting_bytes:
            self.given_up += 1
            raise ChannelLayerUnavailable(
                f"The channel layer's backend is out of reach and {len(self._line)} operations of "
                f"{self._bytes} bytes wait for it already (replay_messages={self.max_waiting}, "
                f"replay_bytes={self.max_waiting_bytes})."
            )
        is_late = bool(self._line) and next(reversed(self._line)) > number
        self._line[number] = None
        self._bytes += size
        if is_late:
            # Seldom, and nearly sorted: it was under way before others came.
            self._line = dict(sorted(self._line.items()))
        try:
            while not self._is_closed:
                if not self._free.is_set():
                    await self._free.wait()
                elif next(iter(self._line)) == number:
                    return
                else:
                    # Those before it are about to wake up.
                    await asyncio.sleep(0)
            raise ChannelLayerUnavailable("The layer was closed.")
        finally:
            del self._line[number]
            self._bytes -= size
