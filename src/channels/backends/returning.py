"""For backends whose queues are out of reach at times: what was taken goes back all the same."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

#: Seconds between two attempts.
_AGAIN_SECONDS: Final = 0.05

#: Puts it into its queue; false if there is no room now.  May raise what an operation raises.
Offer = Callable[[], Awaitable[bool]]


class Returner:
    """Implements `Transport.give_back` with one task for each envelope, one per start.

    Args:
        spawn: Starts a task of the transport.
        is_up: Set while the transport is connected.
        counters: Counts `given_back` and `dropped_expired_returned`.
    """

    def __init__(
        self,
        spawn: Callable[..., asyncio.Task[Any]],
        is_up: asyncio.Event,
        counters: Counter[str],
    ) -> None:
        self._spawn = spawn
        self._is_up = is_up
        self._counters = counters
        self._tasks: set[asyncio.Task[None]] = set()

    def give_back(self, queue: str, envelope: Envelope, offer: Offer) -> None:
        """Offer an envelope to its queue until that has it or the envelope's time is over."""

        async def offer_in_time() -> bool:
            if envelope.is_expired(time.time()):
                self._counters["dropped_expired_returned"] += 1
                return True
            if not await offer():
                return False
            self._counters["given_back"] += 1
            return True

        self.insist(offer_in_time, f"back to {queue}")

    def insist(self, offer: Offer, name: str) -> None:
        """Offer something until it is taken, in a task of this name."""
        task = self._spawn(self._insist(offer), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until all is where it belongs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _insist(self, offer: Offer) -> None:
        while True:
            try:
                if await offer():
                    return
            except TransportDown:
                await self._is_up.wait()
            except ChannelLayerUnavailable as error:
                logger.debug("A message cannot be put back yet: %s", error)
            # In any case: a connection that has just broken is not known to be down yet.
            await asyncio.sleep(_AGAIN_SECONDS)
