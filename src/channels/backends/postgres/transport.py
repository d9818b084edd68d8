"""A process's operations as calls on tables."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from channels.backends.postgres.calls import (
    NEVER,
    Call,
    CallQueue,
    Result,
    read_token,
    target_hash,
)
from channels.backends.postgres.options import TableOptions
from channels.backends.postgres.session import PostgresSession
from channels.backends.postgres.table_store import TableStore
from channels.exceptions import ChannelFull, NodeGone, TransportDown
from channels.layers.contract import Backlog, Capabilities, Taker, TransportEvents
from channels.layers.envelope import Envelope

#: Seconds for the last batch and for signing off.
CLOSE_SECONDS: Final = 0.7


class TableTransport:
    """Moves envelopes through tables.

    Args:
        prefix: What keeps layers in the same tables apart.
    """

    def __init__(self, store: TableStore[Any], options: TableOptions, prefix: str) -> None:
        self.capabilities: Final = Capabilities(delays=True, queue_members=True)
        self.prefix = prefix
        self.calls = CallQueue(options.max_pending)
        self.session = PostgresSession(store, options, self.calls, prefix)
        self._store = store
        self._max_messages = options.max_messages
        self._counters: Counter[str] = Counter()
        self._events: TransportEvents

    @property
    def clock_offset(self) -> float:
        return self.session.clock_offset

    async def start(self, node: str, events: TransportEvents) -> None:
        self._events = events
        self.session.start(self.hash_of("n", node), events)

    async def stop(self) -> None:
        await self.session.stop(CLOSE_SECONDS)

    def abandon(self) -> None:
        self.session.abandon()

    def hash_of(self, kind: str, name: str) -> int:
        """What a target of this layer is known by in the tables."""
        return target_hash(self.prefix, kind, name)

    async def _do(self, call: Call) -> Result:
        """Carry out a call; its place in the order is taken before the first await."""
        if not self.session.is_up:
            raise TransportDown("not connected to the database")
        answer = self.calls.put(call)
        try:
            return await answer
        finally:
            answer.cancel()

    def call(
        self, kind: str, name: str, envelope: Envelope, number: int = 0, extra: int = 0
    ) -> Call:
        """What sends an envelope to a group, a node or a queue."""
        hashed = self.hash_of("q" if kind == "w" else kind, name)
        deadline = envelope.deadline or NEVER
        return Call(kind, hashed, extra, number, deadline, envelope.encoded)

    # Groups and processes.

    async def flush(self) -> None:
        await self._do(Call("f"))

    async def join(self, groups: Sequence[str]) -> None:
        hashes = [self.hash_of("g", group) for group in groups]
        last = (await self._do(Call("j"))).first
        for each in hashes:
            # One that was joined before the connection broke goes on where it was.
            self.session.wanted.setdefault(each, last)

    async def leave(self, groups: Sequence[str]) -> None:
        for group in groups:
            self.session.wanted.pop(self.hash_of("g", group), None)

    async def publish(self, group: str, envelope: Envelope) -> None:
        result = await self._do(self.call("g", group, envelope))
        if result.first < 0:
            self._counters["dropped_log_full"] += 1
        elif result.first:
            self._events.on_over_capacity(group, result.first, result.second)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        result = await self._do(self.call("n", node, envelope))
        if result.first == -2:
            raise NodeGone(node)
        if result.first == -1:
            raise ChannelFull(
                f"The database holds max_messages={self._max_messages} messages already."
            )

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        targets = self.hash_of("g", group), self.hash_of("q", queue)
        capacity = self._events.capacity_of(queue)
        await self._do(Call("a", *targets, capacity, int(expires * 1000)))

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._do(Call("d", self.hash_of("g", group), self.hash_of("q", queue)))

    # Queues.

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        if (await self._do(self.call("q", queue, envelope, capacity))).first == -1:
            raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        # Rounded up: it must not come too early.
        call = self.call("w", queue, envelope, bound, extra=math.ceil(due * 1000))
        if (await self._do(call)).first == -1:
            raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")
        self.session.ticker.due_in(due - time.monotonic() - self.clock_offset)

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self.session.readers.demand(queue, count, seconds, taker)

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
        self.session.ticker.due_in(delay)
        return done

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await self._on_lease("e", token, seconds)

    async def backlog(self, queue: str) -> Backlog:
        waiting, deadline, _ = await self._do(Call("b", self.hash_of("q", queue)))
        return Backlog(waiting, (0 if deadline == NEVER else deadline) if waiting else None)

    async def _on_lease(self, kind: str, token: bytes, seconds: float = 0.0) -> bool:
        number = math.ceil(seconds * 1000)
        return (await self._do(Call(kind, *read_token(token), number))).first == 1

    def statistics(self) -> Mapping[str, int]:
        found = self._counters + self.calls.counters
        found["pending"] = len(self.calls)
        return found
