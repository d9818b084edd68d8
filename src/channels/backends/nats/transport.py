"""The layer's end at NATS: its connection, groups and inboxes; queues are in `nats.queues`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from channels.backends.nats.address import Address
from channels.backends.nats.connection import Broken, NatsConnection
from channels.backends.nats.names import Names, QueuePlan
from channels.backends.nats.options import NatsOptions
from channels.backends.nats.queues import NatsQueues, Taker
from channels.exceptions import InvalidChannelLayerError, MessageTooLarge, TransportDown
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import Capabilities, TransportEvents
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

T = TypeVar("T")

_CLOSE_SECONDS: Final = 0.8
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


class NatsTransport:
    """Moves envelopes through NATS; see `channels.backends.nats`.

    Args:
        plan_of: How a channel that no process owns is kept.
    """

    capabilities: Final = Capabilities()

    def __init__(
        self,
        addresses: Sequence[Address],
        names: Names,
        options: NatsOptions,
        plan_of: Callable[[str], QueuePlan],
    ) -> None:
        self._addresses = list(addresses)
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
        self._is_stopping = False
        self._pause = _FIRST_PAUSE
        self._queues.forget()

    @property
    def clock_offset(self) -> float:
        """NATS tells no time, so deadlines are by the senders' wall clocks."""
        return wall_ahead()

    # Life.

    async def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._become_new()
        self._scope.spawn(self._run(), name="connection")

    async def stop(self) -> None:
        self._is_stopping = True
        connection = self._connection
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._queues.stop()
                if connection is not None:
                    await connection.barrier()
                    await connection.close()
        except (TimeoutError, Broken, NatsError):
            self._counters["closed_rudely"] += 1
        await self._scope.close()
        self._connection = None

    def abandon(self) -> None:
        if self._connection is not None:
            self._connection.abandon()
        self._become_new()

    async def _run(self) -> None:
        """Be connected, until cancelled; to one server of the cluster after the other."""
        turn = random.randrange(len(self._addresses))
        while not self._is_stopping:
            turn += 1
            try:
                await self._serve(self._addresses[turn % len(self._addresses)])
            except InvalidChannelLayerError:
                raise
            except (Broken, NatsError, OSError, TimeoutError) as error:
                logger.debug("No connection to NATS: %r", error)
                if not self._is_stopping:
                    self._events.on_down(error)
            except Exception as error:
                logger.exception("The connection to NATS failed, and is made again")
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    async def _serve(self, address: Address) -> None:
        connection = NatsConnection(self._on_slow)
        try:
            await connection.open(address, self._options.ping_interval)
            await connection.subscribe(self._names.node(self._node), self._on_frame)
            await connection.barrier()
            self._groups = {}
            self._connection = connection
            self._pause = _FIRST_PAUSE
            self._queues.open(connection)
            # NATS keeps nothing for a process that is away.
            self._events.on_up(False)
            await asyncio.wait([connection.ended])
        finally:
            self._connection = None
            self._queues.shut()
            await connection.close()
        if not self._is_stopping:
            self._counters["disconnected"] += 1
            raise connection.ended.result()

    def _on_frame(self, message: Msg) -> None:
        self._events.on_frame(message.data)

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
        await self._done(connection, self._queues.flush(connection))

    async def join(self, groups: Sequence[str]) -> None:
        connection = self._require()

        async def join() -> None:
            for group in groups:
                if group not in self._groups:
                    subject = self._names.group(group)
                    self._groups[group] = await connection.subscribe(subject, self._on_frame)
            await connection.barrier()

        await self._done(connection, join())

    async def leave(self, groups: Sequence[str]) -> None:
        connection = self._require()

        async def leave() -> None:
            for group in groups:
                if (found := self._groups.pop(group, None)) is not None:
                    await found.unsubscribe()

        await self._done(connection, leave())

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

        await self._done(connection, publish())

    async def push(
        self,
        queue: str,
        envelope: Envelope,
        capacity: int,  # noqa: ARG002 - in the queue's plan
    ) -> None:
        connection = self._require(envelope)
        await self._done(connection, self._queues.push(connection, queue, envelope))

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self._queues.demand(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002
        return await self._done(self._require(), self._queues.acknowledge(token))

    async def release(
        self,
        queue: str,  # noqa: ARG002 - a token names it as well
        token: bytes,
        delay: float,
        counted: bool,
    ) -> bool:
        return await self._done(self._require(), self._queues.release(token, delay, counted))

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return await self._done(self._require(), self._queues.extend(token, seconds))

    async def _done(self, connection: NatsConnection, work: Awaitable[T]) -> T:
        """An operation's result; a broken connection in the contract's word."""
        try:
            return await work
        except Broken as error:
            raise TransportDown(str(error)) from error
        except (NatsError, OSError, TimeoutError) as error:
            # So that a new connection, and with it the word that it is up, follows.
            connection.fail(error)
            raise TransportDown(str(error)) from error

    def statistics(self) -> Mapping[str, int]:
        return self._counters
