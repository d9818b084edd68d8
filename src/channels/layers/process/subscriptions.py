"""Which groups this node has joined at the transport.

    NONE -> JOINING -> JOINED -> LINGER -> LEAVING -> NONE

A group is joined when its first member comes and left a while after its last one went, so that
members who come and go do not reach the broker.  Joins and leaves go in batches, one call at a
time: a join never runs beside a leave.  All of it happens on the owner loop, apart from
`is_joined`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from enum import Enum
from typing import Any, Final

from channels.exceptions import TransportDown
from channels.layers.contract import Transport

logger = logging.getLogger("channels.layers")

#: Groups in one call to the transport.
BATCH: Final = 500


class State(Enum):
    JOINING = "joining"
    JOINED = "joined"
    LINGER = "linger"
    LEAVING = "leaving"


_ARRIVING: Final = frozenset({State.JOINED, State.LINGER})


class Subscriptions:
    """Joins and leaves groups as `is_wanted` asks.

    Args:
        is_wanted: Whether a group has members in this process now; any thread may change that.
        spawn: Starts a task of the layer.
        linger: Seconds from the last member's leaving to the group's.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        is_wanted: Callable[[str], bool],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[Any]],
        linger: float,
    ) -> None:
        self._transport = transport
        self._is_wanted = is_wanted
        self._spawn = spawn
        self._linger = linger
        self._states: dict[str, State] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._to_join: dict[str, None] = {}
        self._to_leave: dict[str, None] = {}
        self._runner: asyncio.Task[Any] | None = None

    def state(self, group: str) -> State | None:
        return self._states.get(group)

    def is_joined(self, group: str) -> bool:
        """True if what is published to the group arrives here.  Any thread may ask.

        A group that lingers does: who asks after it has added a member may rely on it, because the
        group is left only after another look at whether it is wanted.
        """
        return self._states.get(group) in _ARRIVING

    async def ensure(self, group: str, timeout_seconds: float) -> bool:
        """Join a group and wait for it; False if that takes longer, and it goes on by itself."""
        state = self._states.get(group)
        if state is State.JOINED:
            return True
        if state is State.LINGER:
            self._timers.pop(group).cancel()
            self._states[group] = State.JOINED
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(group, []).append(waiter)
        if state is None:
            self._want(group)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return False
        return True

    def release(self, group: str) -> None:
        """The group has no member here any more: leave it after a while."""
        if self._states.get(group) is State.JOINED:
            self._states[group] = State.LINGER
            loop = asyncio.get_running_loop()
            self._timers[group] = loop.call_later(self._linger, self._lapse, group)

    async def resume(self, kept: bool, groups: Iterable[str]) -> None:
        """The transport is up: go on where it broke off, or join all of `groups` again."""
        if not kept:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self._states.clear()
            self._to_join.clear()
            self._to_leave.clear()
            for group in dict.fromkeys([*groups, *self._waiters]):
                self._want(group)
        self._start()
        if self._runner is not None:
            await asyncio.wait([self._runner])

    def reset(self) -> None:
        """Forget everything: the connection or the loop has gone for good."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._states.clear()
        self._to_join.clear()
        self._to_leave.clear()
        self._waiters.clear()
        self._runner = None

    def _want(self, group: str) -> None:
        self._states[group] = State.JOINING
        self._to_join[group] = None
        self._start()

    def _lapse(self, group: str) -> None:
        self._timers.pop(group, None)
        if self._is_wanted(group):
            self._states[group] = State.JOINED
            return
        self._states[group] = State.LEAVING
        self._to_leave[group] = None
        self._start()

    def _start(self) -> None:
        if (self._to_join or self._to_leave) and (self._runner is None or self._runner.done()):
            self._runner = self._spawn(self._run(), "channel layer subscriptions")

    async def _run(self) -> None:
        try:
            while self._to_join or self._to_leave:
                if self._to_join:
                    await self._join_some()
                else:
                    await self._leave_some()
        except TransportDown:
            # What was not done is still noted; `resume` starts again.
            return

    async def _join_some(self) -> None:
        batch = list(self._to_join)[:BATCH]
        try:
            await self._transport.join(batch)
        except TransportDown:
            raise
        except Exception:
            # Against the contract; the next group_add tries again.
            logger.exception("Joining %s groups failed", len(batch))
            for group in batch:
                self._to_join.pop(group, None)
                self._states.pop(group, None)
                self._answer(group)
            return
        for group in batch:
            self._to_join.pop(group, None)
            self._states[group] = State.JOINED
            self._answer(group)
            if not self._is_wanted(group):
                self.release(group)

    async def _leave_some(self) -> None:
        batch = []
        for group in list(self._to_leave)[:BATCH]:
            if self._is_wanted(group):
                del self._to_leave[group]
                self._states[group] = State.JOINED
                self._answer(group)
            else:
                batch.append(group)
        if not batch:
            return
        try:
            await self._transport.leave(batch)
        except TransportDown:
            raise
        except Exception:
            logger.exception("Leaving %s groups failed", len(batch))
        for group in batch:
            self._to_leave.pop(group, None)
            self._states.pop(group, None)
            # Someone may have come while it was leaving.
            if self._is_wanted(group) or group in self._waiters:
                self._want(group)

    def _answer(self, group: str) -> None:
        for waiter in self._waiters.pop(group, ()):
            if not waiter.done():
                waiter.set_result(None)
