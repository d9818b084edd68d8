"""A process's end of delays and leases: what it asks of the hub, and what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from channels.backends.local import frames
from channels.backends.local.frames import frame
from channels.exceptions import NodeGone
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope

Taker = Callable[[Leased], None]


class LeasingEnd:
    """What `HubTransport` has of `DelayedQueue` and `WorkQueue`."""

    #: Queue -> (how many are wanted, for how many seconds, who takes them).
    _leasing: dict[str, tuple[int, float, Taker]]

    def _request(self, data: bytes) -> asyncio.Future[None]:
        """Send a request; raises TransportDown where there is no hub."""
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        """Send a frame that has no answer, if there is a hub."""
        raise NotImplementedError

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        body = frames.LATER_BODY.pack(due, min(bound, 0xFFFFFFFF)) + envelope.encoded
        await self._request(frame(frames.PUSH_LATER, queue.encode(), body))

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        known = self._leasing.pop(queue, None)
        if count > 0:
            self._leasing[queue] = (count, seconds, taker)
        elif known is None:
            return
        self._send(_demand(queue, count, seconds))

    async def acknowledge(self, queue: str, token: bytes) -> bool:
        return await self._on_lease(frame(frames.ACKNOWLEDGE, queue.encode(), token))

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:
        body = frames.RELEASE_BODY.pack(token, delay, counted)
        return await self._on_lease(frame(frames.RELEASE, queue.encode(), body))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:
        body = frames.EXTEND_BODY.pack(token, seconds)
        return await self._on_lease(frame(frames.EXTEND, queue.encode(), body))

    async def _on_lease(self, data: bytes) -> bool:
        try:
            await self._request(data)
        except NodeGone:
            return False
        return True

    def _demands(self) -> list[bytes]:
        """What a new hub is told."""
        return [
            _demand(queue, count, seconds) for queue, (count, seconds, _) in self._leasing.items()
        ]

    def _on_leased(self, queue: str, body: bytes) -> None:
        token, attempts = frames.LEASED_BODY.unpack_from(body)
        data = body[frames.LEASED_BODY.size :]
        found = self._leasing.pop(queue, None)
        if found is None:
            # Nobody wants it any more; the hub is told so at once.
            self._send(
                frame(frames.UNWANTED, queue.encode(), frames.RELEASE_BODY.pack(token, 0.0, False))
            )
            return
        count, seconds, taker = found
        if count > 1:
            self._leasing[queue] = (count - 1, seconds, taker)
        taker(Leased(queue, data, token, attempts))


def _demand(queue: str, count: int, seconds: float) -> bytes:
    body = frames.LEASE_BODY.pack(min(count, 0xFFFFFFFF), seconds)
    return frame(frames.LEASE, queue.encode(), body)
