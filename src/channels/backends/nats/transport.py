"""The layer's end at NATS: its connection, groups and inboxes; queues are in `nats.queues`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from nats.aio.msg import Msg

from channels.backends.driver import DriverTransport
from channels.backends.lease_table import LeaseTable
from channels.backends.nats.address import NatsAddress
from channels.backends.nats.connection import NatsConnection
from channels.backends.nats.names import NatsNames
from channels.backends.nats.queues import NatsDelivery, NatsQueues
from channels.exceptions import MessageTooLarge
from channels.layers.envelope import Envelope, origin_of


class NatsTransport(DriverTransport[NatsAddress, NatsConnection, NatsQueues]):
    """Moves envelopes through NATS; see `channels.backends.nats`."""

    def __init__(self, addresses: Sequence[NatsAddress], names: NatsNames) -> None:
        super().__init__(NatsConnection, addresses)
        self._addresses.rotate(random.randrange(len(addresses)))
        self._names = names
        self._table = LeaseTable[NatsDelivery](self._run_out, self._renew)
        #: What has come in the present turn of the loop.
        self._frames: list[bytes] = []

    def _forget(self) -> None:
        self._table.clear()
        self._frames = []

    async def _connect(self, address: NatsAddress) -> NatsConnection:
        connection = NatsConnection(self._on_slow)
        await connection.open(address, self._names.options.ping_interval)
        return connection

    async def _prepare(self, connection: NatsConnection) -> tuple[NatsQueues, bool]:
        await connection.subscribe(self._names.node(self._node), self._on_frame)
        queues = NatsQueues(connection, self._names, self._table)
        await queues.open()
        await connection.barrier()
        # NATS keeps nothing for a process that is away.
        return queues, False

    async def _leave(self, connection: NatsConnection, queues: NatsQueues) -> None:
        await connection.carry_out(queues.close())
        await connection.barrier()

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

    def _run_out(self, delivery: NatsDelivery) -> None:
        self._counters["leases_run_out"] += 1
        self._say(delivery, b"-NAK")

    def _renew(self, delivery: NatsDelivery) -> None:
        self._say(delivery, b"+WPI")

    def _say(self, delivery: NatsDelivery, word: bytes) -> None:
        if self._reader is None:
            # It is another's after `ack_wait`.
            self._counters["put_back_late"] += 1
        else:
            self._reader.say(delivery.reply, word)

    # The operations.

    async def flush(self) -> None:
        connection, queues = self._require()
        await connection.carry_out(queues.flush())

    async def join(self, groups: Sequence[str]) -> None:
        connection, _ = self._require()
        subjects = [self._names.group(group) for group in groups]
        await connection.carry_out(connection.join(subjects, self._on_frame))

    async def leave(self, groups: Sequence[str]) -> None:
        connection, _ = self._require()
        await connection.carry_out(connection.leave([self._names.group(group) for group in groups]))

    async def publish(self, group: str, envelope: Envelope) -> None:
        await self._publish(self._names.group(group), envelope)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        await self._publish(self._names.node(node), envelope)

    async def _publish(self, subject: str, envelope: Envelope) -> None:
        connection = self._require_for(envelope)[0]
        await connection.outcome(connection.publish(subject, envelope.encoded))

    async def push(
        self,
        queue: str,
        envelope: Envelope,
        capacity: int,  # noqa: ARG002 - in the queue's plan
    ) -> None:
        connection, queues = self._require_for(envelope)
        await connection.carry_out(queues.push(queue, envelope))

    def _require_for(self, envelope: Envelope) -> tuple[NatsConnection, NatsQueues]:
        connection, queues = self._require()
        most = connection.client.max_payload
        if len(envelope.encoded) > most:
            raise MessageTooLarge(
                f"A message of {len(envelope.encoded)} bytes is over the NATS server's "
                f"max_payload of {most}."
            )
        return connection, queues
