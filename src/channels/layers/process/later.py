"""Messages that are delivered later.

One for a channel of this process waits here, and dies with it.  One for a channel of another
process is sent there at once and waits in that process; one for a queue waits in the backend.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast

from channels.exceptions import ChannelFull, InvalidChannelLayerError, MalformedEnvelope
from channels.fanout.delivery import Event, post
from channels.layers.codec import UndecodableMessage
from channels.layers.contract import DelayedQueue
from channels.layers.envelope import Kind
from channels.layers.names import node_of
from channels.layers.process.envelopes import Envelopes
from channels.layers.process.link import Link
from channels.layers.process.owner import loop_thread

#: Bytes of all that is pending.
MAX_BYTES: Final = 64 * 1024 * 1024
_DUE: Final = struct.Struct("!Q")


class Later:
    """Sends with a delay; any thread.

    Args:
        life_of: Seconds that a message for a queue lives; None: for ever.
        bound: How many may be pending, here and in the backend.
    """

    def __init__(
        self,
        link: Link,
        envelopes: Envelopes,
        life_of: Callable[[str], float | None],
        bound: int,
    ) -> None:
        self._link = link
        self._envelopes = envelopes
        self._local = envelopes.local
        self._life_of = life_of
        self._bound = bound
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        #: Number -> channel, payload.
        self._pending: dict[int, tuple[str, bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pending)

    async def send(self, channel: str, payload: bytes, delay: float) -> None:
        """Send an encoded message to be delivered after `delay` seconds.

        Raises:
            ChannelFull: If as many wait as may.
            InvalidChannelLayerError: If the backend cannot hold back what is for a queue.
            NodeGone: If the channel's process has gone.
        """
        if self._local.is_here(channel):
            self.put(channel, payload, delay)
            return
        transport, policy, make = self._link.transport, self._local.policy, self._envelopes.make
        due, node = self._envelopes.broker_time + delay, node_of(channel)
        push: Callable[[], Awaitable[None]]
        if node is not None:
            # That process holds it: it is of no use to anyone when the process has gone.
            envelope = make(Kind.LATER, channel, pack_later(due, payload), policy.expiry + delay)
            push = partial(transport.push_node, node, envelope)
        elif not transport.capabilities.delays:
            raise InvalidChannelLayerError(
                f"{type(policy).__name__} cannot delay a message for {channel!r}: send it "
                "when it is due, or use a backend that can (RedisChannelLayer for one)."
            )
        else:
            life = self._life_of(channel)
            life = None if life is None else life + delay
            envelope = make(Kind.CHANNEL, channel, payload, life)
            push_later = cast(DelayedQueue, transport).push_later
            push = partial(push_later, channel, envelope, due, self._bound)
        await self._link.do(len(payload), push)

    def put(self, channel: str, payload: bytes, delay: float) -> None:
        """Deliver in this process after `delay` seconds.

        Raises:
            ChannelFull: If `bound` are pending already.
        """
        number = next(self._numbers)
        with self._lock:
            if len(self._pending) >= self._bound or self._bytes + len(payload) > MAX_BYTES:
                raise ChannelFull(
                    f"{len(self._pending)} delayed messages of {self._bytes} bytes are pending in "
                    f"this process already: the most are max_delayed={self._bound} and "
                    f"{MAX_BYTES} bytes."
                )
            self._bytes += len(payload)
            self._pending[number] = channel, payload
        post(loop_thread.loop(), partial(self._start_timer, number, delay))

    def _start_timer(self, number: int, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._deliver, number)

    def keep(self, channel: str, content: bytes) -> None:
        """Another process has sent it to a channel of this one.

        Raises:
            MalformedEnvelope: If it cannot be read.
        """
        due, payload = read_later(content)
        try:
            self.put(channel, payload, due - self._envelopes.broker_time)
        except ChannelFull:
            self._envelopes.counters["dropped_full"] += 1

    def _deliver(self, number: int) -> None:
        with self._lock:
            channel, payload = self._pending.pop(number, ("", b""))
            self._bytes -= len(payload)
        if not channel:
            return
        try:
            message = self._envelopes.codec.decode(payload)
        except UndecodableMessage as error:
            self._envelopes.losses.unreadable(error)
            return
        until = self._envelopes.clock.monotonic() + self._local.policy.expiry
        self._local.deliver(channel, Event(message, len(payload), until))

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._pending.clear()
            self._bytes = 0


def pack_later(due: float, payload: bytes) -> bytes:
    """The payload of an envelope that says when; `due` in seconds by the broker's clock."""
    return _DUE.pack(int(due * 1000)) + payload


def read_later(payload: bytes) -> tuple[float, bytes]:
    """(due, payload) of such an envelope.

    Raises:
        MalformedEnvelope: If it is none.
    """
    if len(payload) < _DUE.size:
        raise MalformedEnvelope("A delayed message is cut short.")
    return _DUE.unpack_from(payload)[0] / 1000, payload[_DUE.size :]
