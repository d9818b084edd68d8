"""Queues that are read at most once: a message is acknowledged before it is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Final

from channels.exceptions import ChannelLayerUnavailable
from channels.kit.types import Message
from channels.layers.process.link import Link
from channels.layers.process.read_queue import Taken
from channels.layers.process.readers import QueueReaders

#: Between two attempts to acknowledge over a backend that is out of reach.
_RETRY_SECONDS: Final = 0.1


class Queues:
    """At-most-once delivery in this process; any thread and loop."""

    def __init__(self, link: Link, readers: QueueReaders) -> None:
        self._link = link
        self._readers = readers

    async def receive(self, channel: str) -> Message:
        """The next message of a queue.

        Cancel safety: a cancelled call takes nothing.
        """
        if not self._link.is_started:
            await self._link.start()
        while True:
            taken = await self._readers.take(channel, is_plain=True)
            event = self._readers.open(taken)
            if event is None:
                continue
            try:
                if taken.is_acknowledged or await self._acknowledge(taken):
                    return event.message
            except asyncio.CancelledError:
                settle = partial(self._settle, taken)
                self._link.tell(partial(self._readers.settle, channel, settle))
                raise

    async def _acknowledge(self, taken: Taken) -> bool:
        """Acknowledge a message; False if another reader may get it, or has it already."""
        transport = self._link.transport
        clock = self._readers.clock

        def acknowledge() -> Awaitable[bool]:
            taken.asked += 1
            return transport.acknowledge(taken.leased.queue, taken.leased.token)

        while True:
            try:
                if await self._link.do(0, acknowledge):
                    return True
                # Where the answer to an earlier call was lost, a lease that could not have run out
                # yet was ended by that call.
                return taken.asked > 1 and clock.monotonic() < taken.until
            except ChannelLayerUnavailable:
                if not taken.asked or clock.monotonic() >= taken.until:
                    return False
                await asyncio.sleep(_RETRY_SECONDS)

    async def _settle(self, taken: Taken) -> None:
        """Its reader was cancelled while the acknowledgement was under way: learn the answer."""
        if await self._acknowledge(taken):
            taken.is_acknowledged = True
            self._readers.keep(taken)
