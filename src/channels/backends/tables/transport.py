"""A node's operations as calls on tables."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

from channels.backends.tables.calls import NEVER, Call, CallLine, Result, target_hash
from channels.backends.tables.readers import QueueReaders, Taker, read_token
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelFull, NodeGone, TransportDown
from channels.kit.clock import wall_ahead
from channels.layers.contract import TransportEvents
from channels.layers.envelope import Envelope


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
        self.ticker = Ticker()
        self.readers = QueueReaders(line, prefix, self.ticker)
        self._events: TransportEvents
        self._node = ""

    @property
    def clock_offset(self) -> float:
        """As `Transport.clock_offset`; here the tables' times are the processes' own."""
        return wall_ahead()

    def begin(self, node: str, events: TransportEvents) -> None:
        """Call it in `start`."""
        self._node, self._events = node, events
        self.forget()
        self.line.prepare()
        self.readers.begin(lambda _queue, _data: None)

    def forget(self) -> None:
        """Call it in `stop` and `abandon`."""
        self.is_up = False
        self.wanted.clear()
        self.readers.forget()

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

    def _call(
        self, kind: str, name: str, envelope: Envelope, number: int = 0, extra: int = 0
    ) -> Call:
        return Call(
            kind,
            name,
            self.hash_of("q" if kind == "w" else kind, name),
            extra,
            number,
            deadline=envelope.deadline or NEVER,
            payload=envelope.encoded,
        )

    # Queues.

    def woken(self, hashes: set[int] | None) -> None:
        """There is something in these; None: perhaps in any."""
        self.readers.woken(hashes)

    # What is held back from its queue.

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        # Rounded up: it must not come too early.
        call = self._call("w", queue, envelope, bound, extra=math.ceil(due * 1000))
        ((first, _, _),) = await self._do(call)
        if first == -1:
            raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")
        self.ticker.due_in(due - time.monotonic() - self.clock_offset)

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self.readers.demand_leased(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002 - tokens differ
        return await self._on_lease("k", token)

    async def release(
        self,
        queue: str,  # noqa: ARG002 - tokens differ
        token: bytes,
        delay: float,
        counted: bool,
    ) -> bool:
        done = await self._on_lease("r" if counted else "u", token, max(0.0, delay))
        self.ticker.due_in(delay)
        return done

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await self._on_lease("e", token, seconds)

    async def _on_lease(self, kind: str, token: bytes, seconds: float = 0.0) -> bool:
        call = Call(kind, extra=read_token(token), number=math.ceil(seconds * 1000))
        ((first, _, _),) = await self._do(call)
        return first == 1

    def counted(self) -> Counter[str]:
        """The counters of the operations and the line."""
        found = self.counters + self.readers.counters + self.line.counters
        found["pending"] = len(self.line)
        return found
