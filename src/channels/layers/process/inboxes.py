"""Channels of this process that are read with `receive()`: what has come, and who waits.

Attached consumers have their own mailbox; what else bears this node's mark has an inbox here.  Any
thread and any loop may put and wait.  A waiter is only woken: the event stays in the inbox until it
is taken in one step, so that a reader cancelled at any point loses nothing and doubles nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from channels.fanout.delivery import post, running_loop
from channels.kit.types import Message


class Policy(Protocol):
    """What a layer's settings say; they may change while it runs."""

    expiry: float
    group_expiry: float

    def get_capacity(self, channel: str) -> int: ...

    def get_capacity_bytes(self, channel: str) -> int: ...


def wake_first(waiters: deque[asyncio.Future[None]]) -> asyncio.Future[None] | None:
    """Wake the first who waits, on whichever loop, and take it out; None if nobody can be woken."""
    while waiters:
        waiter = waiters.popleft()
        loop = waiter.get_loop()
        if loop is not running_loop():
            if post(loop, waiter):
                return waiter
        elif not waiter.done():
            waiter.set_result(None)
            return waiter
    return None


class Inbox:
    """The unread events of one channel.

    Args:
        lock: The node's lock.
        clock: Monotonic seconds, in which deadlines are.
        policy: Says how many unread events `put_layer` lets in, and how many bytes of them; a
            single larger event still fits into an empty inbox.
    """

    __slots__ = (
        "_bytes",
        "_channel",
        "_clock",
        "_events",
        "_lock",
        "_policy",
        "_waiters",
        "displaced",
        "expired",
        "readers",
    )

    def __init__(
        self,
        lock: threading.RLock,
        clock: Callable[[], float],
        policy: Policy,
        channel: str,
    ) -> None:
        self._lock = lock
        self._clock = clock
        self._policy = policy
        self._channel = channel
        #: How many `receive()` calls are under way.
        self.readers = 0
        #: Events dropped because nobody took them in time.
        self.expired = 0
        #: Always 0: what has been let in stays.
        self.displaced = 0
        self._events: deque[tuple[Message, int, float | None]] = deque()
        self._bytes = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def layer_size(self) -> int:
        """How many events wait."""
        return len(self._events)

    @property
    def layer_is_clear(self) -> bool:
        """An inbox has no sink, so no frame passes it."""
        return False

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:
        """Add a shared event; False if it was dropped because the inbox is full."""
        with self._lock:
            if self._events and self._is_over(size):
                self.drop_expired()
                if self._events and self._is_over(size):
                    return False
            self._events.append((event, size, deadline))
            self._bytes += size
            if self._waiters:
                wake_first(self._waiters)
            return True

    def _is_over(self, size: int) -> bool:
        if len(self._events) >= self._policy.get_capacity(self._channel):
            return True
        return self._bytes + size > self._policy.get_capacity_bytes(self._channel)

    async def get(self) -> Message:
        """The next event, a copy one level deep.

        Cancel safety: a cancelled `get` takes nothing.
        """
        while True:
            with self._lock:
                if self._events and (event := self.get_nowait()) is not None:
                    return event
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                with self._lock:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                    elif self._events:
                        # Woken for an event that this reader will not take: wake the next.
                        wake_first(self._waiters)
                raise

    def get_nowait(self) -> Message | None:
        """The next event that is not past its deadline, or None."""
        events = self._events
        with self._lock:
            while events:
                event, size, deadline = events.popleft()
                self._bytes -= size
                if deadline is None or deadline > self._clock():
                    return event.copy()
                self.expired += 1
            return None

    def drop_expired(self) -> int:
        """Drop what is past its deadline, oldest first; returns how many."""
        now, before = self._clock(), len(self._events)
        with self._lock:
            while self._events:
                _, size, deadline = self._events[0]
                if deadline is None or deadline > now:
                    break
                self._events.popleft()
                self._bytes -= size
                self.expired += 1
            return before - len(self._events)

    def take_all(self) -> list[tuple[Message, int, float | None]]:
        """Empty the inbox: (event, size, deadline)."""
        with self._lock:
            everything = list(self._events)
            self._events.clear()
            self._bytes = 0
            return everything
