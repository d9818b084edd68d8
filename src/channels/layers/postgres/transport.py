"""The transport over PostgreSQL: the node's operations as calls of the writer."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    MalformedEnvelope,
    NodeGone,
    TransportDown,
)
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.postgres.options import Places, PostgresOptions
from channels.layers.postgres.reader import Reader
from channels.layers.postgres.schema import NEVER, Schema, target_hash
from channels.layers.postgres.session import Session
from channels.layers.postgres.writer import Call, Result, Writer
from channels.layers.transport import Capabilities, TransportEvents

#: Seconds that a good-bye may take.
CLOSE_SECONDS: Final = 0.7
#: Messages taken from a queue at a time.
MOST_PULLED: Final = 100
#: Messages whose place in their queue is remembered, in case they come back.
MOST_PLACES: Final = 10_000


class PostgresTransport:
    """Moves envelopes through tables; see `channels.layers.postgres`.

    Args:
        prefix: What keeps layers in the same tables apart.
    """

    def __init__(self, places: Places, options: PostgresOptions, prefix: str) -> None:
        self.capabilities: Final = Capabilities(
            reconnect_window=options.node_life, durable=options.logged
        )
        self.schema = Schema(options)
        self.prefix = prefix
        self._options = options
        self._writer = Writer(self.schema, options, prefix)
        self._session = Session(places, self.schema, options, self._writer)
        self._reader: Reader | None = None
        self._counters: Counter[str] = Counter()
        self._demand: dict[str, int] = {}
        #: Queues that are being asked, and whether there was a wake-up meanwhile.
        self._asking: dict[str, bool] = {}
        self._places: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._events: TransportEvents
        self._node = ""

    @property
    def clock_offset(self) -> float:
        return self._session.clock_offset

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._forget()
        self._writer.prepare(node)
        self._reader = Reader(
            self.schema,
            self._options,
            events.on_frame,
            self._woken,
            lambda: events.on_gap(None),
        )
        self._session.start(node, self._reader, events, self._registered)

    def _registered(self, last: int) -> None:
        assert self._reader is not None, "it is made in start"
        self._reader.wanted[self.hash_of("n", self._node)] = last

    async def stop(self) -> None:
        await self._session.stop(CLOSE_SECONDS)
        self._forget()

    def abandon(self) -> None:
        self._session.abandon()
        self._forget()

    def _forget(self) -> None:
        if self._reader is not None:
            self._counters.update(self._reader.counters)
            self._reader = None
        self._demand.clear()
        self._asking.clear()
        self._places.clear()

    def hash_of(self, kind: str, name: str) -> int:
        """What a target of this layer is known by in the tables."""
        return target_hash(self.prefix, kind, name)

    # The operations.

    async def _do(self, *calls: Call) -> list[Result]:
        """Carry out calls in their order; it is taken before the first await."""
        if not self._session.is_up:
            raise TransportDown("not connected to PostgreSQL")
        answers = [self._writer.put(call) for call in calls]
        try:
            return [await answer for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()

    async def flush(self) -> None:
        await self._do(Call("f"))

    async def join(self, groups: Sequence[str]) -> None:
        hashes = [self.hash_of("g", group) for group in groups]
        last = (await self._do(Call("j")))[0][0]
        if self._reader is not None:
            for each in hashes:
                # One that was joined before the connection broke goes on where it was.
                self._reader.wanted.setdefault(each, last)

    async def leave(self, groups: Sequence[str]) -> None:
        if self._reader is not None:
            for group in groups:
                self._reader.wanted.pop(self.hash_of("g", group), None)

    async def publish(self, group: str, envelope: Envelope) -> None:
        ((first, members, _),) = await self._do(self._call("g", group, envelope))
        if first < 0:
            self._counters["dropped_log_full"] += 1
        elif first:
            self._events.on_over_capacity(group, first, members)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        ((first, _, _),) = await self._do(self._call("n", node, envelope))
        if first == -2:
            raise NodeGone(node)
        if first == -1:
            raise ChannelFull(
                f"The database holds max_messages={self._options.max_messages} messages already."
            )

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        ((first, _, _),) = await self._do(self._call("q", queue, envelope, capacity))
        if first == -1:
            raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        await self._do(
            Call(
                "a",
                queue,
                self.hash_of("g", group),
                extra=self.hash_of("q", queue),
                number=self._events.capacity_of(queue),
                deadline=int(expires * 1000),
            )
        )

    async def discard_queue(self, group: str, queue: str) -> None:
        extra = self.hash_of("q", queue)
        await self._do(Call("d", queue, self.hash_of("g", group), extra=extra))

    def _call(self, kind: str, name: str, envelope: Envelope, number: int = 0) -> Call:
        return Call(
            kind,
            name,
            self.hash_of("q" if kind == "b" else kind, name),
            number=number,
            deadline=envelope.deadline or NEVER,
            payload=envelope.encoded,
        )

    # Queues.

    def demand(self, queue: str, count: int) -> None:
        if count <= 0:
            self._demand.pop(queue, None)
        else:
            self._demand[queue] = count
            self._ask(queue)

    def _ask(self, queue: str) -> None:
        """Take from a queue what is in demand; one question at a time."""
        if queue in self._asking:
            self._asking[queue] = True
            return
        count = min(self._demand.get(queue, 0), MOST_PULLED)
        if count <= 0:
            return
        call = Call("p", queue, self.hash_of("q", queue), number=count)
        self._asking[queue] = False
        try:
            # It may wait there for a connection.
            answer = self._writer.put(call)
        except ChannelLayerUnavailable:
            # The next look, within `poll_interval`, asks again.
            del self._asking[queue]
            return
        answer.add_done_callback(lambda done: self._answered(queue, done))

    def _answered(self, queue: str, done: asyncio.Future[Result]) -> None:
        was_woken = self._asking.pop(queue, False)
        if done.cancelled() or done.exception() is not None or self._reader is None:
            return
        taken = done.result()[2]
        left = self._demand.get(queue, 0) - len(taken)
        self._demand[queue] = left
        if left <= 0:
            del self._demand[queue]
        for place, payload in taken:
            try:
                envelope = decode_envelope(payload)
            except MalformedEnvelope:
                self._events.on_pulled(queue, payload)
                continue
            self._places[envelope.sender, envelope.seq] = place
            self._events.on_pulled(queue, envelope)
        while len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)
        if taken or was_woken:
            self._ask(queue)

    def _woken(self, hashes: set[int] | None) -> None:
        """There is something in these; None: perhaps in any."""
        for queue in list(self._demand):
            if hashes is None or self.hash_of("q", queue) in hashes:
                self._ask(queue)

    def give_back(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        # The last first: each one without a remembered place goes to the head.
        for envelope in reversed(envelopes):
            place = self._places.pop((envelope.sender, envelope.seq), 0)
            try:
                self._writer.put(self._call("b", queue, envelope, place)).add_done_callback(_ignore)
            except ChannelLayerUnavailable:
                self._counters["dropped_given_back"] += 1

    def statistics(self) -> Mapping[str, int]:
        counted = Counter(self._counters)
        counted.update(self._writer.counters)
        counted["pending"] = len(self._writer)
        if self._reader is not None:
            counted.update(self._reader.counters)
            counted["holes"] = len(self._reader.holes)
        return counted


def _ignore(done: asyncio.Future[Result]) -> None:
    """Nobody waits for it; its error is in the counts."""
    if not done.cancelled():
        done.exception()
