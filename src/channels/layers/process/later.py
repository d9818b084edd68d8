"""Delayed messages for channels of this process: they wait here, and die with it.

One for a channel of another process is sent there at once and waits in that process.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from functools import partial
from typing import Final

from channels.exceptions import ChannelFull, MalformedEnvelope
from channels.fanout.delivery import Event, post
from channels.layers.codec import UndecodableMessage
from channels.layers.process.owner import loop_thread
from channels.layers.process.reception import Reception

#: Bytes of all that is pending.
MAX_BYTES: Final = 64 * 1024 * 1024
_DUE: Final = struct.Struct("!Q")


class Later:
    """What is due later, on timers of the layers' thread; any thread may put.

    Args:
        bound: How many may be pending.
    """

    def __init__(self, reception: Reception, bound: int) -> None:
        self._local = reception.local
        self._reception = reception
        self._bound = bound
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        #: Number -> channel, payload.
        self._pending: dict[int, tuple[str, bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, channel: str, payload: bytes, delay: float) -> None:
        """Deliver after `delay` seconds.

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

    def keep(self, channel: str, content: bytes, now: float) -> None:
        """Another process has sent it to a channel of this one; `now` is the broker's time."""
        try:
            due, payload = read_later(content)
            self.put(channel, payload, due - now)
        except MalformedEnvelope as error:
            self._reception.losses.unreadable(error)
        except ChannelFull:
            self._reception.counters["dropped_full"] += 1

    def _deliver(self, number: int) -> None:
        with self._lock:
            channel, payload = self._pending.pop(number, ("", b""))
            self._bytes -= len(payload)
        if not channel:
            return
        try:
            message = self._reception.codec.decode(payload)
        except UndecodableMessage as error:
            self._reception.losses.unreadable(error)
            return
        until = self._reception.clock.monotonic() + self._local.policy.expiry
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
