"""One connection to the broker, what it publishes, and what the broker must have.

aiormq, which aio-pika is built on, speaks AMQP.  It is given a socket that is connected already: so
an address that cannot be reached, and a certificate that is not accepted, are this module's errors
and in its words, and the socket can be closed without the loop.

AMQP channels: one to publish with confirms, one for queues on lease, one for declarations, which
RabbitMQ answers by closing the channel when it refuses one; and the inbox has its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar

import aiormq
from aiormq import Channel, spec
from aiormq.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from channels.backends.rabbitmq.address import RabbitMQAddress
from channels.backends.rabbitmq.frames import ConnectedSocket
from channels.backends.rabbitmq.names import RabbitMQNames, milliseconds
from channels.backends.shell import Broken, OpenConnection, abandon, unreachable
from channels.layers.envelope import Envelope

logger = logging.getLogger("channels.layers")

Part = TypeVar("Part", aiormq.Connection, Channel)

_CONNECT_SECONDS: Final = 8.0
_CLOSE_SECONDS: Final = 1.0
#: Seconds between looks at a queue whose node of the cluster is down.
_AWAY_SECONDS: Final = 0.5
#: Seconds that a publish waits for the broker before that is told.
_BLOCKED_SECONDS: Final = 0.1
#: Queues that one process remembers to have declared.
_MOST_DECLARED: Final = 10_000
_LONGEST_NAME: Final = 255


class RabbitMQConnection(OpenConnection):
    """One connection; what answers one operation is `DeliveryError`."""

    name = "RabbitMQ"
    errors = (AMQPError, ChannelInvalidStateError)
    answers = (DeliveryError,)

    def __init__(
        self, amqp: aiormq.Connection, writer: asyncio.StreamWriter, names: RabbitMQNames
    ) -> None:
        super().__init__()
        self.names = names
        #: For queues on lease.
        self.leases: Channel
        self._amqp = amqp
        self._writer = writer
        self._publishing: Channel
        self._admin: Channel | None = None
        self._admin_lock = asyncio.Lock()
        #: First in, first out: what is published behind a declaration does not overtake it.
        self._gate = asyncio.Lock()
        #: Runs while the broker takes no messages.
        self._blocked: asyncio.Task[None] | None = None
        #: Channel -> when its queue was declared.
        self._declared: dict[str, float] = {}
        self.depend_on(amqp)

    # Life.

    async def open(self) -> None:
        """Make the channels, and what all processes share.

        Raises:
            AMQPError: If something is refused that must not be, or the connection breaks.
        """
        self._publishing = self.depend_on(await self.open_channel(confirms=True))
        self.leases = self.depend_on(await self.open_channel(prefetch=1))
        async with self.admin() as admin:
            await admin.exchange_declare(self.names.groups, exchange_type="direct", durable=True)
        try:
            await self.declare_queue(self.names.names, self.names.names_arguments())
        except ChannelNotFoundEntity as error:
            # Without it `flush` forgets less.
            logger.warning("RabbitMQ: %s", error)

    async def open_channel(self, *, confirms: bool = False, prefetch: int = 0) -> Channel:
        channel = await self._amqp.channel(publisher_confirms=confirms)
        assert isinstance(channel, Channel), "aiormq makes no others"
        if prefetch:
            await channel.basic_qos(prefetch_count=prefetch)
        return channel

    def depend_on(self, part: Part) -> Part:
        """Give the connection up when this part of it ends."""

        def closed(closing: asyncio.Future[Any]) -> None:
            error = None if closing.cancelled() else closing.exception()
            self.fail(f"{type(part).__name__.lower()} closed: {error or 'no answer'}")

        part.closing.add_done_callback(closed)
        return part

    async def _close(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._amqp.close()
        self._writer.transport.abort()

    def abandon(self) -> None:
        abandon(self._writer.transport)

    # Declarations.

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[Channel]:
        """The channel for what the broker may refuse by closing it."""
        async with self._admin_lock:
            if self._admin is None or self._admin.is_closed:
                self._admin = await self.open_channel()
            yield self._admin

    async def bind(self, inbox: str, keys: Sequence[str]) -> None:
        """Have what is published with these routing keys come to an inbox."""
        async with self.admin() as admin:
            for key in keys[:-1]:
                await admin.queue_bind(inbox, self.names.groups, key, nowait=True)
            # Its answer says that all are bound.
            await admin.queue_bind(inbox, self.names.groups, keys[-1])

    async def unbind(self, inbox: str, keys: Sequence[str]) -> None:
        async with self.admin() as admin:
            for key in keys:
                await admin.queue_unbind(inbox, self.names.groups, key)

    async def declare_queue(self, name: str, arguments: dict[str, Any]) -> None:
        """Make a queue unless it exists.

        Raises:
            ChannelNotFoundEntity: If the node of the cluster that has it is down.
            ChannelPreconditionFailed: If it was made with other arguments.
        """
        async with self.admin() as admin:
            await admin.queue_declare(name, durable=True, arguments=arguments)

    async def declare(self, channel: str, max_age: float | None = None) -> str:
        """The queue of a channel, which exists then.

        Args:
            max_age: Seconds for which an earlier declaration counts; None: half of `queue_life`.

        Raises:
            ChannelNotFoundEntity: If the node of the cluster that has it is down.
        """
        now, name = time.monotonic(), self.names.queue(channel)
        known = self._declared.get(channel)
        if max_age is None:
            max_age = self.names.options.queue_life / 2
        if known is None or now - known > max_age:
            # A cancelled call would close the channel for all.
            await asyncio.shield(self.spawn(self._declare(channel, name, known is None)))
            if len(self._declared) >= _MOST_DECLARED:
                self._declared.pop(next(iter(self._declared)))
            self._declared[channel] = now
        return name

    async def _declare(self, channel: str, name: str, is_new: bool) -> None:
        try:
            await self.declare_queue(name, self.names.queue_arguments(channel))
        except ChannelPreconditionFailed:
            # Its messages are worth more than the settings.
            if is_new:
                logger.warning(
                    "The queue %s exists with another capacity or expiry than the settings ask "
                    "for, and is used as it is; it is made anew once it was deleted or unused.",
                    name,
                )
        if is_new:
            await self.publish_raw(name.encode(), routing_key=self.names.names)

    async def count(self, channel: str) -> int:
        """How many messages of a channel's queue are on no lease."""
        try:
            async with self.admin() as admin:
                found = await admin.queue_declare(self.names.queue(channel), passive=True)
        except ChannelNotFoundEntity:
            return 0
        return found.message_count or 0

    def forget(self, channel: str) -> None:
        """A channel's queue is gone."""
        self._declared.pop(channel, None)

    async def flush(self) -> None:
        """Delete every queue whose name was registered."""
        self._declared.clear()
        deleted: set[str] = set()
        while True:
            name = self.names.names
            try:
                async with self.admin() as admin:
                    found = await admin.basic_get(name, no_ack=True)
                if not isinstance(found.delivery, spec.Basic.GetOk):
                    return
                name = found.body.decode(errors="replace")
                # Anyone who may publish can put another's there.
                is_ours = name.startswith(f"{self.names.prefix}.") and len(name) <= _LONGEST_NAME
                if is_ours and name not in deleted:
                    deleted.add(name)
                    async with self.admin() as admin:
                        await admin.queue_delete(name)
            except (ChannelNotFoundEntity, ChannelPreconditionFailed) as error:
                logger.warning("%s could not be deleted: %s", name, error)
                if name == self.names.names:
                    return

    # Publishing.

    async def publish(self, key: str, envelope: Envelope, *, mandatory: bool = False) -> None:
        """Give it to the groups' exchange.

        Raises:
            PublishError: If it is mandatory and no queue is bound.
            DeliveryError: If a queue was full.
        """
        async with self._gate:
            await self._admit()
        await self.publish_raw(
            envelope.encoded,
            exchange=self.names.groups,
            routing_key=key,
            properties=_properties(envelope, delivery_mode=1),
            mandatory=mandatory,
        )

    async def push(self, channel: str, envelope: Envelope, *, is_returned: bool = False) -> None:
        """Append it to a channel's queue, or put it before the others.

        Raises:
            DeliveryError: If the queue was full.
        """
        properties = _properties(
            envelope,
            delivery_mode=2 if self.names.options.persistent else 1,
            priority=int(is_returned),
        )
        while True:
            try:
                async with self._gate:
                    await self._admit()
                    queue = await self.declare(channel)
                await self.publish_raw(
                    envelope.encoded, routing_key=queue, properties=properties, mandatory=True
                )
            except PublishError:
                self.forget(channel)
            except ChannelNotFoundEntity:
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                return

    async def publish_raw(self, body: bytes, **others: Any) -> None:
        """As aiormq's `basic_publish`; returns when the broker has it."""
        await self._publishing.basic_publish(body, wait=False, **others)

    async def _admit(self) -> None:
        """Wait while the broker takes nothing, for it is short of memory or disk."""
        if self._blocked is None:
            try:
                async with asyncio.timeout(_BLOCKED_SECONDS):
                    await self._amqp.ready()
                return
            except TimeoutError:
                self._blocked = self.spawn(self._until_admitted())
        await asyncio.shield(self._blocked)

    async def _until_admitted(self) -> None:
        logger.warning("RabbitMQ takes no messages: sends wait up to send_timeout")
        await self._amqp.ready()
        logger.warning("RabbitMQ takes messages again")
        self._blocked = None


def _properties(envelope: Envelope, **others: Any) -> spec.Basic.Properties:
    expiration = None
    if envelope.deadline:
        expiration = str(milliseconds(envelope.deadline / 1000 - time.time()))
    return spec.Basic.Properties(expiration=expiration, **others)


async def connect(address: RabbitMQAddress, name: str, names: RabbitMQNames) -> RabbitMQConnection:
    """Connect and log in, as `name`.

    Raises:
        Broken: If there is no such broker, it refuses, or has not let us in in time.
    """
    for library in ("aiormq.connection", "aiormq.channel"):
        # They log broken connections, with a traceback each; the layer says it once.
        if logging.getLogger(library).level == logging.NOTSET:
            logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=address.tls
            )
    except TimeoutError:
        raise Broken(f"RabbitMQ at {address} did not answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise Broken(
            f"the certificate of {address} is not accepted: {error.verify_message}. Trust its "
            "authority by cacertfile in the URL, or by ssl_context"
        ) from error
    except ssl.SSLError as error:
        raise Broken(
            f"no TLS with {address}: {error.reason or error}. amqps needs the broker's port for TLS"
        ) from error
    except OSError as error:
        raise unreachable(f"RabbitMQ at {address}", error, "url") from error
    # A cancelled log-in would wait for the other end's good-bye.
    deadline = asyncio.get_running_loop().call_later(_CONNECT_SECONDS, writer.transport.abort)
    try:
        amqp = aiormq.Connection(
            address.url(names.options.heartbeat, name),
            transport_factory=ConnectedSocket(reader, writer),
        )
        await amqp.connect()
    except (AMQPError, OSError, ValueError) as error:
        cause = str(error) or type(error).__name__
        if address.tls is not None and isinstance(error.__cause__, OSError | EOFError):
            cause += "; the broker may want a certificate of ours: certfile and keyfile in the URL"
        raise Broken(f"RabbitMQ refuses the connection: {cause}") from error
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        deadline.cancel()
    return RabbitMQConnection(amqp, writer, names)
