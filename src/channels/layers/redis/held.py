"""What is held back from its queue, on one Redis server: what is delayed, and what is on lease.

Two sorted sets say when each is due, a hash has the bodies.  Whatever process is connected looks in
time what is due and puts it into its queue (`Ticker`): a worker that was killed leaves nothing
behind that the others do not find.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from channels.exceptions import ChannelFull, ChannelLayerUnavailable, TransportDown
from channels.layers.envelope import Envelope
from channels.layers.redis import scripts
from channels.layers.redis.calls import KEEP, Calls, mark_of
from channels.layers.transport import Leased

logger = logging.getLogger("channels.layers")

#: Held messages that one call puts into their queues.
MOST: Final = 100
#: Seconds between two looks at what is due, at most and at least.
LONGEST: Final = 5.0
SHORTEST: Final = 0.01
#: The same while Redis does not answer.
_RETRY_SECONDS: Final = 0.25


class HeldCalls(Calls):
    """The operations of `DelayingTransport` and `LeasingTransport` on one server."""

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """As `DelayingTransport.push_later`."""
        mark, index = mark_of(queue, envelope), self.next_index()
        taken = self._known(mark)
        if taken is None:
            taken = await self._filling(
                mark,
                index,
                *scripts.evaluation(
                    scripts.PUSH_LATER,
                    (
                        *self.keys.held,
                        self.keys.sequence(self.session),
                        self.keys.refused(self.session),
                    ),
                    f"{self.session}:{index}",
                    queue,
                    envelope.encoded,
                    int(due * 1000),
                    bound,
                    index,
                    KEEP,
                ),
            )
        if taken == -1:
            raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")

    async def lease(self, queue: str, token: str, count: int, seconds: float) -> list[Leased]:
        """Take up to `count`; the same again, after the answer was lost, if `token` is the same."""
        taken = await self._calling(
            self.line.call(
                *scripts.evaluation(
                    scripts.LEASE,
                    (*self.keys.held, self.keys.queue(queue)),
                    token,
                    queue,
                    count,
                    int(seconds * 1000),
                )
            )
        )
        return [Leased(queue, data, token, attempts) for token, data, attempts in taken]

    async def acknowledge(self, token: bytes) -> bool:
        """As `LeasingTransport.acknowledge`."""
        return await self._on_lease(scripts.ACKNOWLEDGE, token)

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """As `LeasingTransport.release`."""
        return await self._on_lease(
            scripts.RELEASE, token, self.keys.base, int(delay * 1000), int(counted)
        )

    async def extend(self, token: bytes, seconds: float) -> bool:
        """As `LeasingTransport.extend`."""
        return await self._on_lease(scripts.EXTEND, token, int(seconds * 1000))

    async def tick(self) -> float | None:
        """Put what is due into its queue; seconds until the next is due, or None."""
        wait, run_out = await self._calling(
            self.line.call_first(
                *scripts.evaluation(scripts.TICK, self.keys.held, self.keys.base, MOST)
            )
        )
        self.counters["leases_run_out"] += run_out
        return wait / 1000 if wait >= 0 else None

    async def flush(self) -> None:
        await super().flush()
        await self._calling(self.line.call("DEL", *self.keys.held))

    async def _on_lease(self, script: str, *arguments: Any) -> bool:
        answer = await self._calling(
            self.line.call(*scripts.evaluation(script, self.keys.held, *arguments))
        )
        return bool(answer)


class Ticker:
    """Looks in time what is due."""

    def __init__(self, calls: HeldCalls, is_open: Callable[[], bool]) -> None:
        self._calls = calls
        self._is_open = is_open
        self._at = 0.0
        self._sooner = asyncio.Event()

    def due_in(self, seconds: float) -> None:
        """Something of this process's is due then."""
        at = time.monotonic() + seconds
        if at < self._at:
            self._at = at
            self._sooner.set()

    async def run(self) -> None:
        """Tick until cancelled, through failures."""
        while True:
            self._at = time.monotonic() + await self._tick()
            while (left := self._at - time.monotonic()) > 0:
                self._sooner.clear()
                try:
                    async with asyncio.timeout(left):
                        await self._sooner.wait()
                except TimeoutError:
                    break

    async def _tick(self) -> float:
        if not self._is_open():
            return _RETRY_SECONDS
        try:
            wait = await self._calls.tick()
        except (TransportDown, ChannelLayerUnavailable) as error:
            logger.debug("What is due could not be looked at: %s", error)
            return _RETRY_SECONDS
        return LONGEST if wait is None else min(LONGEST, max(SHORTEST, wait))
