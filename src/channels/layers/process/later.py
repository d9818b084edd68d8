"""Delayed messages for channels of this process: they wait here, and die with it.

One for a channel of another process is sent there at once and waits in that process.
"""

from __future__ import annotations

import heapq
import itertools
import struct
import threading
from collections.abc import Callable
from typing import Final

from channels.exceptions import ChannelFull, MalformedEnvelope
from channels.fanout.event import Event
from channels.layers.process.alarm import Alarm
from channels.layers.process.local import LocalChannels
from channels.layers.process.reception import Reception

#: Bytes of all that is pending.
MAX_BYTES: Final = 64 * 1024 * 1024
_DUE: Final = struct.Struct("!Q")


class Later:
    """What is due later; any thread.

    Args:
        expiry: Seconds for which a message may be unread once it is due.
        bound: How many may be pending.
    """

    def __init__(
        self,
        local: LocalChannels,
        reception: Reception,
        expiry: Callable[[], float],
        bound: int,
    ) -> None:
        self._local = local
        self._reception = reception
        self._clock = reception.clock
        self._expiry = expiry
        self._bound = bound
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        #: (due in monotonic seconds, number, channel, payload)
        self._heap: list[tuple[float, int, str, bytes]] = []
        self._bytes = 0
        self._alarm = Alarm(self._clock, self.tick)

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, channel: str, payload: bytes, delay: float) -> None:
        """Deliver after `delay` seconds.

        Raises:
            ChannelFull: If `bound` are pending already.
        """
        due = self._clock.monotonic() + delay
        with self._lock:
            if len(self._heap) >= self._bound or self._bytes + len(payload) > MAX_BYTES:
                raise ChannelFull(
                    f"{len(self._heap)} delayed messages of {self._bytes} bytes are pending in "
                    f"this process already: the most are max_delayed={self._bound} and "
                    f"{MAX_BYTES} bytes."
                )
            self._bytes += len(payload)
            heapq.heappush(self._heap, (due, next(self._numbers), channel, payload))
        self._alarm.set(due)

    def tick(self) -> float | None:
        """Deliver what is due; returns when the next is."""
        while True:
            with self._lock:
                if not self._heap:
                    return None
                if self._heap[0][0] > self._clock.monotonic():
                    return self._heap[0][0]
                _, _, channel, payload = heapq.heappop(self._heap)
                self._bytes -= len(payload)
            self._deliver(channel, payload)

    def keep(self, channel: str, content: bytes, now: float) -> None:
        """Another process has sent it to a channel of this one; `now` is the broker's time."""
        try:
            due, payload = read_later(content)
            self.put(channel, payload, due - now)
        except MalformedEnvelope as error:
            self._reception.count_malformed(error)
        except ChannelFull:
            self._reception.counters["dropped_full"] += 1

    def _deliver(self, channel: str, payload: bytes) -> None:
        message = self._reception.message(payload)
        if message is None:
            return
        event = Event(message, len(payload), self._clock.monotonic() + self._expiry())
        try:
            self._local.deliver(channel, event)
        except ChannelFull:
            self._reception.counters["dropped_full"] += 1

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._heap.clear()
            self._bytes = 0
        self._alarm.cancel()


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
