"""Which groups this node has joined at the transport.

A group is joined when its first member comes and left a while after its last one went, so that
members who come and go do not reach the broker.  Groups to look at are gathered, and one task
brings them to what is wanted, in batches: a join never runs beside a leave.  All of it happens on
the owner loop; members come and go on any thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Final

from channels.exceptions import TransportDown
from channels.layers.contract import Bus
from channels.layers.names import ALL_NODES

logger = logging.getLogger("channels.layers")

#: Groups in one call to the transport.
BATCH: Final = 500


class Subscriptions:
    """Joins the groups that are wanted, and leaves the others.

    Args:
        wanted: The groups that have members in this process now; any thread may change that.
        spawn: Starts a task of the layer.
        linger: Seconds from the last member's leaving to the group's.

    Attributes:
        joined: The groups of which what is published arrives here; any thread may look.
    """

    def __init__(
        self,
        bus: Bus,
        wanted: Collection[str],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[Any]],
        linger: float,
    ) -> None:
        self._bus = bus
        self._wanted = wanted
        self._spawn = spawn
        self._linger = linger
        self.joined: set[str] = set()
        #: Groups to look at; the transport may have to join or leave them.
        self._pending: dict[str, None] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._runner: asyncio.Task[Any] | None = None

    async def ensure(self, group: str, timeout_seconds: float) -> bool:
        """Join a group and wait for it; False if that takes longer, and it goes on by itself.

        Called after a member was added: one that is joined and has no other member is left only
        after another look at whether it is wanted.
        """
        if group in self.joined:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(group, []).append(waiter)
        self._look_at(group)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            return False
        return True

    def release(self, group: str) -> None:
        """The group has no member here any more: leave it after a while."""
        if group in self.joined:
            if (timer := self._timers.get(group)) is not None:
                timer.cancel()
            loop = asyncio.get_running_loop()
            self._timers[group] = loop.call_later(self._linger, self._lapse, group)

    def _lapse(self, group: str) -> None:
        del self._timers[group]
        self._look_at(group)

    async def resume(self, kept: bool) -> None:
        """Connected again: finish what was begun, or join all groups again."""
        if not kept:
            self.forget()
            # The last: a node that is found in this one has joined all others.
            self._pending.update(dict.fromkeys([*list(self._wanted), *self._waiters, ALL_NODES]))
        self._start()
        if self._runner is not None:
            await asyncio.wait([self._runner])

    def forget(self) -> None:
        """Nothing is joined: the broker or the connection is another."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.joined.clear()
        self._pending.clear()

    def _look_at(self, group: str) -> None:
        self._pending[group] = None
        self._start()

    def _start(self) -> None:
        if self._pending and (self._runner is None or self._runner.done()):
            self._runner = self._spawn(self._run(), "channel layer subscriptions")

    async def _run(self) -> None:
        try:
            while self._pending:
                batch = list(self._pending)[:BATCH]
                await self._join([group for group in batch if self._is_needed(group)])
                # Also what has been joined for a member that is gone again.
                await self._leave([group for group in batch if not self._is_needed(group)])
        except TransportDown:
            # What was not done is still pending; `resume` starts again.
            return

    def _is_needed(self, group: str) -> bool:
        return group == ALL_NODES or group in self._wanted or group in self._waiters

    async def _join(self, groups: Sequence[str]) -> None:
        new = [group for group in groups if group not in self.joined]
        if await self._change(self._bus.join, new):
            # Otherwise the next group_add tries again.
            self.joined.update(new)
        for group in groups:
            self._pending.pop(group, None)
            for waiter in self._waiters.pop(group, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def _leave(self, groups: Sequence[str]) -> None:
        # First: a member that is added meanwhile waits for the group to be joined again.
        self.joined.difference_update(groups)
        await self._change(self._bus.leave, groups)
        for group in groups:
            if not self._is_needed(group):
                self._pending.pop(group, None)

    async def _change(
        self, change: Callable[[Sequence[str]], Awaitable[None]], groups: Sequence[str]
    ) -> bool:
        """Join or leave groups; False if the transport failed against the contract."""
        if groups:
            try:
                await change(groups)
            except TransportDown:
                raise
            except Exception:
                logger.exception("Joining or leaving %s groups failed", len(groups))
                return False
        return True
