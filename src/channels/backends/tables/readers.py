"""Reading queues in tables: as many messages are asked for as readers wait, one question at a time.

A queue may be read in both ways at once: by demand, for readers whose messages leave the database
when they are taken, and by lease, for those whose messages leave it when they are finished.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from channels.backends.tables.calls import NEVER, Call, CallLine, Result, target_hash
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable, MalformedEnvelope
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, decode_envelope

#: Messages taken from a queue at a time.
MOST_PULLED: Final = 100
#: Messages whose place in their queue is remembered, in case they come back.
MOST_PLACES: Final = 10_000

Taker = Callable[[Leased], None]
OnPulled = Callable[[str, Envelope | bytes], None]


class Reading:
    """One queue that is read in one way; `taker` has what is leased, None: by demand."""

    __slots__ = ("count", "is_asked", "is_woken", "queue", "seconds", "taker")

    def __init__(self, queue: str, taker: Taker | None) -> None:
        self.queue = queue
        self.taker = taker
        self.seconds = 0.0
        #: How many are wanted.
        self.count = 0
        #: The database is being asked, and whether there was a wake-up meanwhile.
        self.is_asked = False
        self.is_woken = False


class QueueReaders:
    """The readers of one process.

    Args:
        prefix: As for `TableTransport`.
        ticker: Told when leases run out.
    """

    def __init__(self, line: CallLine, prefix: str, ticker: Ticker) -> None:
        self.counters: Counter[str] = Counter()
        self._line = line
        self._prefix = prefix
        self._ticker = ticker
        self._readings: dict[tuple[str, bool], Reading] = {}
        self._places: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._is_closing = False
        self._on_pulled: OnPulled

    def begin(self, on_pulled: OnPulled) -> None:
        """Call it when the transport starts."""
        self.forget()
        self._on_pulled = on_pulled
        self._is_closing = False

    def forget(self) -> None:
        """Nobody reads here any more."""
        self._readings.clear()
        self._places.clear()

    def quiesce(self) -> None:
        """Take nothing more; what is being taken on lease is put back."""
        self._is_closing = True
        for reading in self._readings.values():
            reading.count = 0

    def demand(self, queue: str, count: int) -> None:
        """As `Transport.demand`."""
        self._want(queue, count, 0.0, None)

    def demand_leased(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """As `LeasingTransport.demand_leased`."""
        self._want(queue, count, seconds, taker)

    def woken(self, hashes: set[int] | None) -> None:
        """There is something in these; None: perhaps in any."""
        for reading in list(self._readings.values()):
            if hashes is None or self._hash(reading.queue) in hashes:
                self._ask(reading)

    def give_back(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        """As `Transport.give_back`."""
        # The last first: each one without a remembered place goes to the head.
        for envelope in reversed(envelopes):
            place = self._places.pop((envelope.sender, envelope.seq), 0)
            self._put_back(
                Call(
                    "b",
                    queue,
                    self._hash(queue),
                    number=place,
                    deadline=envelope.deadline or NEVER,
                    payload=envelope.encoded,
                )
            )

    def _hash(self, queue: str) -> int:
        return target_hash(self._prefix, "q", queue)

    def _want(self, queue: str, count: int, seconds: float, taker: Taker | None) -> None:
        if self._is_closing:
            return
        key = queue, taker is not None
        reading = self._readings.get(key)
        if reading is None:
            if count <= 0:
                return
            reading = self._readings[key] = Reading(queue, taker)
        reading.count, reading.seconds, reading.taker = max(0, count), seconds, taker
        self._ask(reading)

    def _ask(self, reading: Reading) -> None:
        """Take what is wanted; one question at a time."""
        if reading.is_asked:
            reading.is_woken = True
            return
        count = min(reading.count, MOST_PULLED)
        if count <= 0:
            self._readings.pop((reading.queue, reading.taker is not None), None)
            return
        call = Call("p", reading.queue, self._hash(reading.queue), number=count)
        if reading.taker is not None:
            call.kind, call.extra = "l", _new_token()
            call.deadline = int(reading.seconds * 1000)
        try:
            # It may wait there for a connection.
            answer = self._line.put(call)
        except ChannelLayerUnavailable:
            # The next look, within `poll_interval`, asks again.
            return
        reading.is_asked, reading.is_woken = True, False
        answer.add_done_callback(partial(self._answered, reading))

    def _answered(self, reading: Reading, done: asyncio.Future[Result]) -> None:
        reading.is_asked = False
        if done.cancelled() or done.exception() is not None:
            return
        taken = done.result()[2]
        reading.count = max(0, reading.count - len(taken))
        for number, payload in taken:
            if reading.taker is None:
                self._hand_out(reading.queue, number, payload)
            else:
                self._lease_out(reading, reading.taker, number, payload)
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        if taken or reading.is_woken:
            self._ask(reading)

    def _hand_out(self, queue: str, place: int, payload: bytes) -> None:
        try:
            envelope = decode_envelope(payload)
        except MalformedEnvelope:
            self._on_pulled(queue, payload)
            return
        self._places[envelope.sender, envelope.seq] = place
        self._on_pulled(queue, envelope)

    def _lease_out(self, reading: Reading, taker: Taker, token: int, payload: bytes) -> None:
        if self._is_closing:
            self._put_back(Call("u", reading.queue, extra=token))
            return
        self._ticker.due_in(reading.seconds)
        leased: Envelope | bytes = payload
        attempts = 1
        try:
            leased = decode_envelope(payload)
            attempts = leased.attempts
        except MalformedEnvelope:
            # Whoever takes it counts it and finishes it.
            pass
        taker(Leased(reading.queue, leased, pack_token(token), attempts))

    def _put_back(self, call: Call) -> None:
        try:
            self._line.put(call).add_done_callback(_ignore)
        except ChannelLayerUnavailable:
            self.counters["dropped_given_back"] += call.kind == "b"


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
