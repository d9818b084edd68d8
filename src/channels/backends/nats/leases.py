"""What a process has on lease of JetStream.

A message that was taken is another's after `ack_wait` unless its process says that it goes on with
it, which this does until the lease is over.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from typing import Final

from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from channels.backends.nats.connection import NatsConnection
from channels.exceptions import TransportDown

_NANO: Final = 1_000_000_000


class _Held:
    """One message on lease."""

    __slots__ = ("ack_wait", "due", "reply", "timer")

    timer: asyncio.TimerHandle

    def __init__(self, message: Msg, due: float, ack_wait: float) -> None:
        self.reply = message.reply
        #: When the lease is over, and how long JetStream waits, in seconds.
        self.due = due
        self.ack_wait = ack_wait


class NatsLeases:
    """All leases of this process, which outlive its connections."""

    def __init__(self, counters: Counter[str]) -> None:
        self.connection: NatsConnection | None = None
        self._counters = counters
        self._held: dict[bytes, _Held] = {}
        self._boot = os.urandom(8)
        self._numbers = itertools.count(1)

    def forget(self) -> None:
        """The process ends, or the loop is another."""
        for held in self._held.values():
            held.timer.cancel()
        self._held.clear()

    def add(self, message: Msg, seconds: float, ack_wait: float) -> tuple[bytes, int]:
        """Lease a message that has come; returns the token and how often it was leased."""
        token = self._boot + next(self._numbers).to_bytes(8, "big")
        now = asyncio.get_running_loop().time()
        self._held[token] = held = _Held(message, now + seconds, ack_wait)
        self._arm(token, held, now)
        return token, message.metadata.num_delivered or 1

    def _arm(self, token: bytes, held: _Held, now: float) -> None:
        at = min(held.due, now + held.ack_wait / 2)
        held.timer = asyncio.get_running_loop().call_at(at, self._on_time, token, held)

    def _on_time(self, token: bytes, held: _Held) -> None:
        """Say that it goes on, or that the lease is over."""
        now = asyncio.get_running_loop().time()
        if now >= held.due:
            self._held.pop(token, None)
            self._counters["leases_run_out"] += 1
            self.say(held.reply, b"-NAK")
        else:
            self.say(held.reply, b"+WPI")
            self._arm(token, held, now)

    def say(self, reply: str, word: bytes) -> None:
        """Say something of a delivery; lost, the message is another's after `ack_wait`."""
        if self.connection is None or self.connection.ended.done():
            self._counters["put_back_late"] += 1
        else:
            self.connection.spawn(self.connection.publish(reply, word))

    async def acknowledge(self, token: bytes) -> bool:
        """As `WorkQueue.acknowledge`."""
        return await self._end(token, b"+ACK")

    async def release(self, token: bytes, delay: float) -> bool:
        """As `WorkQueue.release`; it was an attempt, for JetStream counts deliveries."""
        word = b'-NAK {"delay": %d}' % int(delay * _NANO) if delay > 0 else b"-NAK"
        return await self._end(token, word)

    async def extend(self, token: bytes, seconds: float) -> bool:
        """As `WorkQueue.extend`."""
        held = self._held.get(token)
        if held is None or not await self._confirm(held.reply, b"+WPI"):
            return False
        now = asyncio.get_running_loop().time()
        held.due = now + seconds
        held.timer.cancel()
        if token not in self._held:
            return False
        self._arm(token, held, now)
        return True

    async def _end(self, token: bytes, word: bytes) -> bool:
        held = self._held.get(token)
        if held is None or not await self._confirm(held.reply, word):
            return False
        held.timer.cancel()
        return self._held.pop(token, None) is not None

    async def _confirm(self, reply: str, word: bytes) -> bool:
        """Say something of a lease and hear that it was heard; False if it is known no more."""
        connection = self.connection
        if connection is None:
            raise TransportDown("NATS is not connected")
        try:
            await connection.carry_out(connection.client.request(reply, word, timeout=5))
        except NoRespondersError:
            return False
        return True
