"""Reading queues in tables: as many leases are asked for as readers wait, one query at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from channels.backends.postgres.calls import Call, CallQueue, Result, target_hash
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable, MalformedEnvelope
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, decode_envelope

#: Messages leased from a queue at a time.
MOST_LEASED: Final = 100

Taker = Callable[[Leased], None]


class Reading:
    """One queue that is read here."""

    __slots__ = ("count", "hash", "is_asked", "is_woken", "queue", "seconds", "taker")

    def __init__(self, queue: str, hashed: int) -> None:
        self.queue = queue
        self.hash = hashed
        self.taker: Taker
        #: Of a lease.
        self.seconds = 0.0
        #: How many are wanted.
        self.count = 0
        #: The database is being asked, and whether there was a wake-up meanwhile.
        self.is_asked = False
        self.is_woken = False


class QueueReaders:
    """The queues that one process reads.

    Args:
        prefix: As for `TableTransport`.
        ticker: Told when leases run out.
    """

    def __init__(self, calls: CallQueue, prefix: str, ticker: Ticker) -> None:
        self._calls = calls
        self._prefix = prefix
        self._ticker = ticker
        self._readings: dict[str, Reading] = {}
        self._is_closing = False

    def begin(self) -> None:
        """Call it when the transport starts, stops or is abandoned: nobody reads here."""
        self._readings.clear()
        self._is_closing = False

    def quiesce(self) -> None:
        """Lease nothing more; what is being leased is put back."""
        self._is_closing = True
        for reading in self._readings.values():
            reading.count = 0

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        if self._is_closing or (count <= 0 and queue not in self._readings):
            return
        reading = self._readings.get(queue)
        if reading is None:
            hashed = target_hash(self._prefix, "q", queue)
            reading = self._readings[queue] = Reading(queue, hashed)
        reading.count, reading.seconds, reading.taker = max(0, count), seconds, taker
        self._ask(reading)

    def woken(self, hashes: set[int] | None) -> None:
        """These queues may have messages; None: any may."""
        for reading in list(self._readings.values()):
            if hashes is None or reading.hash in hashes:
                self._ask(reading)

    def _ask(self, reading: Reading) -> None:
        """Lease what is wanted; one question at a time."""
        if reading.is_asked:
            reading.is_woken = True
            return
        count = min(reading.count, MOST_LEASED)
        if count <= 0:
            self._readings.pop(reading.queue, None)
            return
        life = int(reading.seconds * 1000)
        call = Call("l", reading.queue, reading.hash, _new_token(), count, deadline=life)
        try:
            # It may wait there for a connection.
            answer = self._calls.put(call)
        except ChannelLayerUnavailable:
            # The next poll asks again.
            return
        reading.is_asked, reading.is_woken = True, False
        answer.add_done_callback(partial(self._answered, reading))

    def _answered(self, reading: Reading, done: asyncio.Future[Result]) -> None:
        reading.is_asked = False
        if done.cancelled() or done.exception() is not None:
            return
        leased = done.result().leased
        reading.count = max(0, reading.count - len(leased))
        for token, payload in leased:
            self._hand_out(reading, token, payload)
        if leased or reading.is_woken:
            self._ask(reading)

    def _hand_out(self, reading: Reading, token: int, payload: bytes) -> None:
        if self._is_closing:
            self._release(token)
            return
        self._ticker.due_in(reading.seconds)
        data: Envelope | bytes = payload
        attempts = 1
        try:
            data = decode_envelope(payload)
            attempts = data.attempts
        except MalformedEnvelope:
            # Its reader counts and acknowledges it.
            pass
        reading.taker(Leased(reading.queue, data, pack_token(token), attempts))

    def _release(self, token: int) -> None:
        # If it cannot be put there, it comes again when its lease has run out.
        with contextlib.suppress(ChannelLayerUnavailable):
            self._calls.put(Call("u", extra=token)).add_done_callback(_ignore)


def pack_token(number: int) -> bytes:
    """The number of a lease in the tables as its token."""
    return number.to_bytes(8)


def read_token(token: bytes) -> int:
    """The reverse; 0, which names no lease, for what is no token of ours."""
    return int.from_bytes(token) if len(token) == 8 and token[0] < 0x80 else 0


def _new_token() -> int:
    """The first number of a call's leases, which are that and those that follow it."""
    return (int.from_bytes(os.urandom(8)) >> 2) + 1


def _ignore(done: asyncio.Future[Result]) -> None:
    if not done.cancelled():
        done.exception()
