"""A node's operations as calls on tables."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    MalformedEnvelope,
    NodeGone,
    TransportDown,
)
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.tables.calls import NEVER, Call, CallLine, Result, target_hash
from channels.layers.transport import TransportEvents

#: Messages taken from a queue at a time.
MOST_PULLED: Final = 100
#: Messages whose place in their queue is remembered, in case they come back.
MOST_PLACES: Final = 10_000


class TableTransport:
    """The operations of a transport; a subclass connects, carries out the calls and reads.

    Attributes:
        is_up: Whether calls may be made; set by the subclass.
        wanted: What is read: hash of a group or node -> the id after which it counts.

    Args:
        prefix: What keeps layers in the same tables apart.
        max_messages: Size of the log at which sends are refused, for the text of the error.
    """

    def __init__(self, line: CallLine, prefix: str, max_messages: int) -> None:
        self.prefix = prefix
        self.line = line
        self.is_up = False
        self.wanted: dict[int, int] = {}
        self.counters: Counter[str] = Counter()
        self._max_messages = max_messages
        self._demand: dict[str, int] = {}
        #: Queues that are being asked, and whether there was a wake-up meanwhile.
        self._asking: dict[str, bool] = {}
        self._places: OrderedDict[tuple[bytes, int], int] = OrderedDict()
        self._events: TransportEvents
        self._node = ""

    def begin(self, node: str, events: TransportEvents) -> None:
        """Call it in `start`."""
        self._node, self._events = node, events
        self.forget()
        self.line.prepare()

    def forget(self) -> None:
        """Call it in `stop` and `abandon`."""
        self.is_up = False
        self.wanted.clear()
        self._demand.clear()
        self._asking.clear()
        self._places.clear()

    def want_node(self, last: int) -> None:
        """Read this node's own inbox from here on."""
        self.wanted[self.hash_of("n", self._node)] = last

    def want_all(self) -> None:
        """Read everything that is joined from the log's beginning."""
        for each in self.wanted:
            self.wanted[each] = 0

    def hash_of(self, kind: str, name: str) -> int:
        """What a target of this layer is known by in the tables."""
        return target_hash(self.prefix, kind, name)

    # The operations.

    async def _do(self, *calls: Call) -> list[Result]:
        """Carry out calls in their order; it is taken before the first await."""
        if not self.is_up:
            raise TransportDown("not connected to the database")
        answers = [self.line.put(call) for call in calls]
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
        for each in hashes:
            # One that was joined before the connection broke goes on where it was.
            self.wanted.setdefault(each, last)

    async def leave(self, groups: Sequence[str]) -> None:
        for group in groups:
            self.wanted.pop(self.hash_of("g", group), None)

    async def publish(self, group: str, envelope: Envelope) -> None:
        ((first, members, _),) = await self._do(self._call("g", group, envelope))
        if first < 0:
            self.counters["dropped_log_full"] += 1
        elif first:
            self._events.on_over_capacity(group, first, members)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        ((first, _, _),) = await self._do(self._call("n", node, envelope))
        if first == -2:
            raise NodeGone(node)
        if first == -1:
            raise ChannelFull(
                f"The database holds max_messages={self._max_messages} messages already."
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
            answer = self.line.put(call)
        except ChannelLayerUnavailable:
            # The next look, within `poll_interval`, asks again.
            del self._asking[queue]
            return
        answer.add_done_callback(lambda done: self._answered(queue, done))

    def _answered(self, queue: str, done: asyncio.Future[Result]) -> None:
        was_woken = self._asking.pop(queue, False)
        if done.cancelled() or done.exception() is not None:
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

    def woken(self, hashes: set[int] | None) -> None:
        """There is something in these; None: perhaps in any."""
        for queue in list(self._demand):
            if hashes is None or self.hash_of("q", queue) in hashes:
                self._ask(queue)

    def give_back(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        # The last first: each one without a remembered place goes to the head.
        for envelope in reversed(envelopes):
            place = self._places.pop((envelope.sender, envelope.seq), 0)
            try:
                self.line.put(self._call("b", queue, envelope, place)).add_done_callback(_ignore)
            except ChannelLayerUnavailable:
                self.counters["dropped_given_back"] += 1

    def counted(self) -> Counter[str]:
        """The counters of the operations and the line."""
        found = self.counters + self.line.counters
        found["pending"] = len(self.line)
        return found


def _ignore(done: asyncio.Future[Result]) -> None:
    """Nobody waits for it; its error is in the counts."""
    if not done.cancelled():
        done.exception()
