"""What is held back from its queue, on one Redis server: what is delayed, and what is on lease.

Two sorted sets say when each is due, a hash has the bodies.  Whatever process is connected looks in
time what is due and puts it into its queue (`Ticker`): a worker that was killed leaves nothing
behind that the others do not find.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from channels.backends.redis import queue_scripts, scripts
from channels.backends.redis.calls import KEEP, Calls, mark_of
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, TransportDown
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: Held messages that one call puts into their queues.
MOST: Final = 100
#: Seconds between two looks at what is due while Redis does not answer.
_RETRY_SECONDS: Final = 0.25


class HeldCalls(Calls):
    """The operations of `DelayedQueue` and `WorkQueue` on one server."""

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        """As `DelayedQueue.push_later`."""
        keys = self.keys
        taken = await self._fill(
            mark_of(queue, envelope),
            lambda index: (
                queue_scripts.PUSH_LATER,
                (*keys.held, self.own.sequence, self.own.refused),
                *(f"{self.session}:{index}", queue, envelope.encoded),
                *(int(due * 1000), bound, index, KEEP),
            ),
        )
        if taken == -1:
            raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")

    # `LeaseCalls`.

    notes_waiting: Final = True

    @property
    def is_open(self) -> bool:
        return self.line.is_open

    def new_token(self) -> str:
        return f"{self.session}:{self.next_index()}:"

    def read_leases(self, answer: Any) -> Any:
        return answer

    def begin_lease(
        self, queue: str, token: str, count: int, seconds: float
    ) -> asyncio.Future[Any]:
        keys = (*self.keys.held, self.keys.queue(queue))
        arguments = (token, queue, count, int(seconds * 1000), self.keys.base, self.waiter)
        return self.line.begin(*scripts.evaluation(queue_scripts.LEASE, keys, *arguments))

    async def acknowledge(self, token: bytes) -> bool:
        """As `WorkQueue.acknowledge`."""
        return await self._on_lease(queue_scripts.ACKNOWLEDGE, token)

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        """As `WorkQueue.release`."""
        return await self._on_lease(
            queue_scripts.RELEASE, token, self.keys.base, int(delay * 1000), int(counted)
        )

    async def extend(self, token: bytes, seconds: float) -> bool:
        """As `WorkQueue.extend`."""
        return await self._on_lease(queue_scripts.EXTEND, token, int(seconds * 1000))

    async def tick(self) -> float | None:
        """As `Tick`, through failures."""
        if not self.line.is_open:
            return _RETRY_SECONDS
        try:
            wait, run_out = await self._translated(
                self.line.call_first(
                    *scripts.evaluation(queue_scripts.TICK, self.keys.held, self.keys.base, MOST)
                )
            )
        except (TransportDown, ChannelLayerUnavailable) as error:
            logger.debug(
                "Polling delayed messages failed; retrying in %s s: %s", _RETRY_SECONDS, error
            )
            return _RETRY_SECONDS
        self.counters["leases_run_out"] += run_out
        return wait / 1000 if wait >= 0 else None

    async def flush(self) -> None:
        await super().flush()
        await self._do("DEL", *self.keys.held)

    async def _on_lease(self, script: str, *arguments: Any) -> bool:
        return bool(await self._run(script, self.keys.held, *arguments))
