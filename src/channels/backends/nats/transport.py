"""The layer's end at NATS: its connection, groups and inboxes; queues are in `nats.queues`."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from channels.backends.nats.address import NatsAddress
from channels.backends.nats.connection import NatsConnection
from channels.backends.nats.names import NatsNames, QueuePlan
from channels.backends.nats.options import NatsOptions
from channels.backends.nats.queues import NatsQueues, Taker
from channels.backends.shell import Backoff, Supervisor
from channels.exceptions import MessageTooLarge, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Backlog, Capabilities, TransportEvents
from channels.layers.envelope import Envelope, origin_of

_CLOSE_SECONDS: Final = 0.8


class NatsTransport:
    """Moves envelopes through NATS; see `channels.backends.nats`.

    Args:
        plan_of: How a channel that no process owns is kept.
    """

    capabilities: Final = Capabilities()

    def __init__(
        self,
        addresses: Sequence[NatsAddress],
        names: NatsNames,
        options: NatsOptions,
        plan_of: Callable[[str], QueuePlan],
    ) -> None:
        self._addresses = deque(addresses)
        self._addresses.rotate(random.randrange(len(addresses)))
        self._backoff: Backoff
        self._names = names
        self._options = options
        self._counters: Counter[str] = Counter()
        self._queues = NatsQueues(names, options, plan_of, self._counters)
        self._events: TransportEvents
        self._node = ""
        self._become_new()

    def _become_new(self) -> None:
        self._scope = TaskScope("channel layer on NATS")
        self._connection: NatsConnection | None = None
        #: Group -> its subscription, on the present connection.
        self._groups: dict[str, Any] = {}
        #: What has come in the present turn of the loop.
        self._frames: list[bytes] = []
        self._queues.forget()

    @property
    def clock_offset(self) -> float:
        """NATS tells no time, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._become_new()
        supervisor = Supervisor("NATS", self._serve, (NatsError,), events.on_down)
        self._backoff = supervisor.backoff
        self._scope.spawn(supervisor.run(), name="connection")

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._queues.stop()
                if self._connection is not None:
                    await self._connection.barrier()
        except (TimeoutError, TransportDown):
            self._counters["closed_rudely"] += 1
        await self._scope.close()

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
        self._become_new()

    async def _serve(self) -> None:
        """Be connected to the next server of the cluster, until that breaks."""
        self._addresses.rotate(-1)
        connection = NatsConnection(self._on_slow)
        try:
            await connection.open(self._addresses[0], self._options.ping_interval)
            await connection.subscribe(self._names.node(self._node), self._on_frame)
            await connection.barrier()
            self._groups = {}
            self._connection = connection
            self._backoff.reset()
            self._queues.open(connection)
            # NATS keeps nothing for a process that is away.
            self._events.on_up(False)
            await connection.until_ended()
        finally:
            if self._connection is not None and connection.ended.done():
                self._counters["disconnected"] += 1
            self._connection = None
            self._queues.shut()
            await connection.close()

    def _on_frame(self, message: Msg) -> None:
        self._frames.append(message.data)
        if len(self._frames) == 1:
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Give the node what came in one turn of the loop, each sender's in its order.

        nats-py has a task for each subscription: of messages that come in one read, all of the
        first one's group precede all of the next one's.
        """
        frames, self._frames = self._frames, []
        if len(frames) > 1:
            frames.sort(key=origin_of)
        for data in frames:
            self._events.on_frame(data)

    def _on_slow(self) -> None:
        """This process is so far behind that nats-py has dropped messages for it."""
        self._counters["dropped_slow"] += 1
        self._events.on_gap(None)

    # The operations.

    def _require(self, envelope: Envelope | None = None) -> NatsConnection:
        connection = self._connection
        if connection is None or connection.ended.done():
            raise TransportDown("NATS is not connected")
        most = connection.client.max_payload
        if envelope is not None and len(envelope.encoded) > most:
            raise MessageTooLarge(
                f"A message of {len(envelope.encoded)} bytes is over the NATS server's "
                f"max_payload of {most}."
            )
        return connection

    async def flush(self) -> None:
        connection = self._require()
        await connection.outcome(self._queues.flush(connection))

    async def join(self, groups: Sequence[str]) -> None:
        connection = self._require()

        async def join() -> None:
            for group in groups:
                if group not in self._groups:
                    subject = self._names.group(group)
                    self._groups[group] = await connection.subscribe(subject, self._on_frame)
            await connection.barrier()

        await connection.outcome(join())

    async def leave(self, groups: Sequence[str]) -> None:
        connection = self._require()

        async def leave() -> None:
            for group in groups:
                if (found := self._groups.pop(group, None)) is not None:
                    await found.unsubscribe()

        await connection.outcome(leave())

    async def publish(self, group: str, envelope: Envelope) -> None:
        await self._publish(self._names.group(group), envelope)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        await self._publish(self._names.node(node), envelope)

    async def _publish(self, subject: str, envelope: Envelope) -> None:
        connection = self._require(envelope)

        async def publish() -> None:
            await connection.publish(subject, envelope.encoded)
            # Otherwise what the server never got would have been sent.
            await connection.barrier()

        await connection.outcome(publish())

    async def push(
        self,
        queue: str,
        envelope: Envelope,
        capacity: int,  # noqa: ARG002 - in the queue's plan
    ) -> None:
        connection = self._require(envelope)
        await connection.outcome(self._queues.push(connection, queue, envelope))

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self._queues.demand(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await self._require().outcome(self._queues.leases.acknowledge(token))

    async def release(self, queue: str, token: bytes, delay: float, counted: bool) -> bool:  # noqa: ARG002
        return await self._require().outcome(self._queues.leases.release(token, delay))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await self._require().outcome(self._queues.leases.extend(token, seconds))

    async def backlog(self, queue: str) -> Backlog:
        connection = self._require()
        return Backlog(await connection.outcome(self._queues.count(connection, queue)))

    def statistics(self) -> Mapping[str, int]:
        return self._counters
