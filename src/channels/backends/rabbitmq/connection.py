"""One connection to the broker.

aiormq, which aio-pika is built on, speaks AMQP.  It is given a socket that is connected already: so
an address that cannot be reached, and a certificate that is not accepted, are this module's errors
and in its words, and the socket can be let go of without the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from typing import Any, Final

import aiormq
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError

from channels.backends.rabbitmq.address import RabbitMQAddress
from channels.backends.shell import Broken, OpenConnection, abandon, unreachable

#: What aiormq raises when a connection or a channel breaks, or something is refused.
ERRORS: Final = (AMQPError, ChannelInvalidStateError)
_CONNECT_SECONDS: Final = 8.0
_CLOSE_SECONDS: Final = 1.0

_HEAD: Final = struct.Struct("!BHI")
_METHOD, _HEADER = 1, 2
_DELIVER: Final = struct.pack("!HH", 60, 60)
#: Of a content header: class, weight, size of the body; the flags that follow are for properties.
_FIXED: Final = 12


class RabbitMQConnection(OpenConnection):
    """A connection to RabbitMQ; what answers one operation is `DeliveryError`."""

    def __init__(self, amqp: aiormq.Connection, writer: asyncio.StreamWriter) -> None:
        super().__init__("RabbitMQ", ERRORS, (DeliveryError,))
        self.amqp = amqp
        self._writer = writer
        amqp.closing.add_done_callback(self._closed)

    async def close(self) -> None:
        """Close it; the other end need not answer."""
        await self.end_tasks()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.amqp.close()
        self._writer.transport.abort()

    def abandon(self) -> None:
        """Close the descriptor without the loop."""
        abandon(self._writer.transport)

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self.fail(f"the connection ended: {error or 'no answer'}")


async def connect(address: RabbitMQAddress, heartbeat: int, name: str) -> RabbitMQConnection:
    """Connect and log in.

    Raises:
        Broken: If there is no such broker, it refuses, or has not let us in in time.
    """
    _silence()
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
            address.url(heartbeat, name), transport_factory=_Connected(reader, writer)
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
    return RabbitMQConnection(amqp, writer)


def _silence() -> None:
    """Have aiormq not log broken connections, with a traceback each: the layer says it once."""
    for name in ("aiormq.connection", "aiormq.channel"):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(logging.CRITICAL)


class _Connected(TransportFactory):
    """Gives aiormq a socket that is connected."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams = _FrameReader(reader), writer

    async def create(self, url: Any, **_: Any) -> Any:
        del url
        return self._streams


class _FrameReader:
    """Frames of the broker without what senders of messages may put there.

    Anyone who may publish writes properties, headers and routing keys; one that the library cannot
    decode would end the connection, and would come again with the next one.  The layer reads none.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._data = b""
        #: Channels whose next content header belongs to a delivery.
        self._delivering: set[int] = set()

    def at_eof(self) -> bool:
        return not self._data and self._reader.at_eof()

    async def readexactly(self, count: int) -> bytes:
        if not self._data:
            self._data = await self._read_frame()
        found, self._data = self._data[:count], self._data[count:]
        if len(found) < count:
            raise asyncio.IncompleteReadError(found, count)
        return found

    async def _read_frame(self) -> bytes:
        head = await self._reader.readexactly(_HEAD.size)
        kind, channel, size = _HEAD.unpack(head)
        if head.startswith(b"AMQP"):
            return head
        payload = await self._reader.readexactly(size + 1)
        if kind == _METHOD and payload.startswith(_DELIVER):
            self._delivering.add(channel)
            # The consumer's tag, the delivery's, the octet with `redelivered`; then empty names.
            end = len(_DELIVER) + 1 + payload[len(_DELIVER)] + 8 + 1
            payload = payload[:end] + b"\0\0" + payload[-1:]
        elif kind == _HEADER and channel in self._delivering:
            self._delivering.discard(channel)
            payload = payload[:_FIXED] + b"\0\0" + payload[-1:]
        return _HEAD.pack(kind, channel, len(payload) - 1) + payload
