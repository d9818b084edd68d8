"""A broker in this process with connections that can be cut: what a node's tests run on.

Unlike the in-memory transport it is not direct: operations wait a turn for their answer, envelopes
arrive as bytes in a later turn, groups must be joined, and a connection can break before an
operation reached the broker or before its answer came back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from channels.backends.memory.engine import MemoryEngine
from channels.backends.memory.queue import Demand
from channels.exceptions import MalformedEnvelope, NodeGone, TransportDown
from channels.kit.clock import SystemClock
from channels.layers.contract import Backlog, Capabilities, Leased, Taker, TransportEvents
from channels.layers.envelope import Envelope, decode_envelope
from channels.layers.options import LayerOptions
from channels.layers.process.alarm import Alarm
from channels.layers.process.layer import NodeChannelLayer


class LoopbackBroker:
    """Queues, nodes with an inbox each, and which groups they have joined."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.engine = MemoryEngine(clock, lambda: 0.1)
        self.alarm = Alarm(clock, self.engine.tick)
        self.engine.on_due = self.alarm.set
        self.nodes: dict[str, LoopbackTransport] = {}
        self.groups: dict[str, dict[str, None]] = {}
        self.pushed: set[tuple[bytes, int]] = set()
        self.calls: Counter[str] = Counter()
        self.is_reachable = True
        self.malformed = 0

    def join(self, node: str, groups: Sequence[str]) -> None:
        for group in groups:
            self.groups.setdefault(group, {})[node] = None

    def leave(self, node: str, groups: Sequence[str]) -> None:
        for group in groups:
            self.groups.get(group, {}).pop(node, None)

    def forget(self, node: str) -> None:
        self.nodes.pop(node, None)
        for nodes in self.groups.values():
            nodes.pop(node, None)

    def publish(self, group: str, envelope: Envelope) -> None:
        for node in list(self.groups.get(group, ())):
            self.nodes[node].deliver(envelope.encoded)

    def push_node(self, node: str, envelope: Envelope) -> None:
        if node not in self.nodes:
            raise NodeGone(node)
        self.nodes[node].deliver(envelope.encoded)

    def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        try:
            envelope = decode_envelope(envelope.encoded)
        except MalformedEnvelope:
            self.malformed += 1
            return
        if (envelope.sender, envelope.seq) not in self.pushed:
            self.engine.push(queue, envelope, capacity)
            self.pushed.add((envelope.sender, envelope.seq))

    def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        if (envelope.sender, envelope.seq) not in self.pushed:
            self.engine.push_later(queue, envelope, due, bound)
            self.pushed.add((envelope.sender, envelope.seq))


class LoopbackTransport:
    """One node's connection to the broker.

    Attributes:
        lose_answers: So many operations from now on are carried out, then the connection breaks.
        delays: Envelopes stay at the broker, in `inbox`, until `let_go`.
    """

    clock_offset = 0.0
    capabilities = Capabilities(delays=True, queue_members=True)

    def __init__(self, broker: LoopbackBroker) -> None:
        self.broker = broker
        self.lose_answers = 0
        self.delays = False
        self.inbox: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_up = False
        self._leasing: dict[str, tuple[int, float, Taker]] = {}
        self.events: TransportEvents
        self.node = ""

    async def start(self, node: str, events: TransportEvents) -> None:
        self.node, self.events = node, events
        self._loop = asyncio.get_running_loop()
        self.broker.nodes[node] = self
        self._loop.call_soon(self.restore, False)

    async def stop(self) -> None:
        self._is_up = False
        self._leasing.clear()
        self.broker.engine.forget_reader(self)
        self.broker.forget(self.node)

    def abandon(self) -> None:
        self._is_up = False
        self._leasing.clear()
        self.broker.engine.forget_reader(self)
        self.broker.forget(self.node)

    # What tests do to it, on its loop.

    def cut(self) -> None:
        """The connection breaks; the broker keeps the node's inbox and groups."""
        if self._is_up:
            self._is_up = False
            self.events.on_down(ConnectionError("cut"))

    def restore(self, kept: bool = True) -> None:
        """The connection is back."""
        if self.broker.is_reachable and not self._is_up and self._loop is not None:
            self._is_up = True
            if not kept:
                self.inbox.clear()
                self.broker.forget(self.node)
                self.broker.nodes[self.node] = self
            self.events.on_up(kept)
            for queue, (count, seconds, taker) in list(self._leasing.items()):
                self.demand(queue, count, seconds, taker)
            self.let_go()

    def let_go(self) -> None:
        """Let what has waited arrive."""
        self.delays = False
        self._arrive()

    # The operations.

    async def _operate(self, name: str) -> None:
        self.broker.calls[name] += 1
        if self.lose_answers:
            self.lose_answers -= 1
            if not self.lose_answers:
                self.cut()
            raise TransportDown("the answer was lost")
        await asyncio.sleep(0)
        if not self._is_up:
            raise TransportDown("cut while waiting")

    def _check(self) -> None:
        if not self._is_up:
            raise TransportDown("not connected")

    async def flush(self) -> None:
        self._check()
        self.broker.engine.flush()
        await self._operate("flush")

    async def join(self, groups: Sequence[str]) -> None:
        self._check()
        self.broker.join(self.node, groups)
        await self._operate("join")

    async def leave(self, groups: Sequence[str]) -> None:
        self._check()
        self.broker.leave(self.node, groups)
        await self._operate("leave")

    async def publish(self, group: str, envelope: Envelope) -> None:
        self._check()
        full, members = self.broker.engine.publish(group, envelope, self.events.capacity_of)
        if full:
            self.events.on_over_capacity(group, full, members)
        self.broker.publish(group, envelope)
        await self._operate("publish")

    async def push_node(self, node: str, envelope: Envelope) -> None:
        self._check()
        self.broker.push_node(node, envelope)
        await self._operate("push_node")

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        self._check()
        self.broker.push(queue, envelope, capacity)
        await self._operate("push")

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        self._check()
        self.broker.push_later(queue, envelope, due, bound)
        await self._operate("push_later")

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        self._check()
        self.broker.engine.add(group, queue, expires)
        await self._operate("add_queue")

    async def discard_queue(self, group: str, queue: str) -> None:
        self._check()
        self.broker.engine.discard(group, queue)
        await self._operate("discard_queue")

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self._leasing[queue] = (count, seconds, taker)
        if not count:
            del self._leasing[queue]

        def take(leased: Leased) -> None:
            assert isinstance(leased.data, Envelope)
            left, *_ = self._leasing.get(queue, (1, seconds, taker))
            self._leasing.pop(queue, None)
            if left > 1:
                self._leasing[queue] = (left - 1, seconds, taker)
            self._soon(lambda: taker(leased._replace(data=leased.data.encoded)))

        if self._is_up:
            self.broker.engine.demand(self, queue, Demand(count, seconds, take))

    async def acknowledge(self, queue: str, token: bytes) -> bool:
        self._check()
        done = self.broker.engine.acknowledge(token)
        await self._operate("acknowledge")
        return done

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:
        self._check()
        done = self.broker.engine.release(token, delay, counted)
        await self._operate("release")
        return done

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:
        self._check()
        done = self.broker.engine.extend(token, seconds)
        await self._operate("extend")
        return done

    async def backlog(self, queue: str) -> Backlog:
        self._check()
        found = self.broker.engine.backlog(queue)
        await self._operate("backlog")
        return found

    def statistics(self) -> Mapping[str, int]:
        return {"inbox": len(self.inbox), "dropped_malformed": self.broker.malformed}

    # Arrivals.

    def deliver(self, data: bytes) -> None:
        self.inbox.append(data)
        self._soon(self._arrive)

    def _soon(self, callback: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _arrive(self) -> None:
        while self._is_up and not self.delays and self.inbox:
            self.events.on_frame(self.inbox.popleft())


class LoopbackChannelLayer(NodeChannelLayer):
    """A layer on the loopback broker."""

    transport: LoopbackTransport

    def __init__(self, broker: LoopbackBroker, **config: Any) -> None:
        self.transport = LoopbackTransport(broker)
        super().__init__(self.transport, LayerOptions(**config))
