"""AMQP 0-9-1 on one connection: frames in order, many calls under way, nothing that waits.

pamqp knows the frames; this module knows what follows what.  The drivers above pamqp wait for one
call's answer before they write the next, and close a channel when a waiting caller is cancelled;
here a call has its place in the order when it is made, and a cancelled caller loses its answer.

A connection ends by `fail`, whoever finds out first: the peer, the socket, or the silence.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import pamqp.frame
from pamqp import commands
from pamqp.base import Frame
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from channels.backends.descriptors import let_go
from channels.backends.rabbitmq.address import Address
from channels.backends.rabbitmq.channel import AmqpChannel, Broken

logger = logging.getLogger("channels.layers")

_HEAD: Final = struct.Struct("!BHI")
_BODY: Final = 3
_END: Final = 0xCE
#: What we are ready for; the broker proposes 128 KiB.
_FRAME_MAX: Final = 131_072
#: Heartbeats without a sign of the peer.
_SILENT_BEATS: Final = 2.5
#: Heartbeats without a sign of ours after which RabbitMQ may give us up; after three it has.
_PATIENT_BEATS: Final = 2.0
_PRODUCT: Final[dict[str, Any]] = {
    "product": "channels",
    "capabilities": {
        "consumer_cancel_notify": True,
        "authentication_failure_close": True,
        "connection.blocked": True,
    },
}


class AmqpConnection(asyncio.Protocol):
    """One connection; open when `opened` is done, over when `ended` is.

    Args:
        heartbeat: Seconds.
    """

    def __init__(self, address: Address, heartbeat: int) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        #: Its result says why.
        self.ended: asyncio.Future[Broken] = loop.create_future()
        self.frame_max = _FRAME_MAX
        #: Whether the broker takes messages; it stops when it is short of memory or disk.
        self.is_blocked = False
        #: Called when it takes messages again.
        self.on_unblocked: Callable[[], None] = lambda: None
        self._loop = loop
        self._address = address
        self._heartbeat = float(heartbeat)
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, AmqpChannel] = {}
        self._data = bytearray()
        self._out: list[bytes] = []
        self._heard = self._said = loop.time()
        self._beat: asyncio.TimerHandle | None = None
        #: (channel, method, header, pieces, octets missing) of contents that are arriving.
        self._contents: dict[int, _Content] = {}

    def channel(self, number: int) -> AmqpChannel:
        """A new channel under this number, opened with the next write."""
        channel = self._channels[number] = AmqpChannel(self, number)
        self._contents.pop(number, None)
        return channel

    def holds(self) -> bool:
        """Whether the broker surely has not given up this connection; if it may have, that is over.

        A process that was halted, or whose loop was blocked, has not heard of it yet, and what it
        had in hand may be another's.
        """
        silent = self._loop.time() - self._said
        if self.opened.done() and silent >= _PATIENT_BEATS * self._heartbeat:
            self.fail(Broken(f"this process has said nothing to RabbitMQ for {silent:.1f} s"))
        return not self.ended.done()

    # Writing.

    def write(self, data: bytes) -> None:
        """Send this with all else of this turn of the loop."""
        if self.ended.done():
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def write_frame(self, frame: Any, number: int) -> None:
        self.write(pamqp.frame.marshal(frame, number))

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if not self.holds():
            return
        if data and self._transport is not None and not self._transport.is_closing():
            self._said = self._loop.time()
            self._transport.write(data)

    async def close(self) -> None:
        """Say good-bye and wait for the answer."""
        if self.opened.done() and not self.ended.done():
            self.write_frame(commands.Connection.Close(200, "bye", 0, 0), 0)
            await asyncio.wait([self.ended])

    def fail(self, error: Broken) -> None:
        """The connection is over."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()
        if self._beat is not None:
            self._beat.cancel()
        if self._transport is not None:
            self._transport.abort()
        for channel in list(self._channels.values()):
            channel.shut(error)

    def abandon(self) -> None:
        """Let go without the loop."""
        transport, self._transport = self._transport, None
        if transport is not None:
            let_go(transport)

    # What the loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.write(ProtocolHeader().marshal())
        self._tick()

    def connection_lost(self, exc: Exception | None) -> None:
        cause = str(exc or "closed by the peer")
        if isinstance(exc, ssl.SSLError) and not self.opened.done():
            cause += "; the broker may want a certificate of ours: certfile and keyfile in the URL"
        self.fail(Broken(f"the connection to RabbitMQ ended: {cause}"))

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._data += data
        try:
            self._take_frames()
        except (PAMQPException, ValueError, struct.error) as error:
            self.fail(Broken(f"RabbitMQ sent what cannot be understood: {error}"))

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._heard > _SILENT_BEATS * self._heartbeat:
            self.fail(Broken(f"RabbitMQ has been silent for {now - self._heard:.1f} s"))
        if not self.holds():
            return
        if self.opened.done() and now - self._said >= self._heartbeat / 2:
            self.write(Heartbeat().marshal())
        self._beat = self._loop.call_later(self._heartbeat / 4, self._tick)

    # Reading.

    def _take_frames(self) -> None:
        data, start = self._data, 0
        if data.startswith(b"AMQP"):
            raise ValueError("another version of AMQP")
        while len(data) - start >= _HEAD.size and not self.ended.done():
            kind, number, size = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + size
            if size > self.frame_max:
                raise ValueError(f"a frame of {size} octets")
            if len(data) <= end:
                break
            if data[end] != _END:
                raise ValueError("a frame without its end")
            if kind == _BODY:
                self._take_body(number, bytes(data[start + _HEAD.size : end]))
            else:
                _, _, frame = pamqp.frame.unmarshal(bytes(data[start : end + 1]))
                self._take(number, frame)
            start = end + 1
        del data[:start]

    def _take(self, number: int, frame: Any) -> None:
        if isinstance(frame, Heartbeat):
            return
        if number == 0:
            self._take_connection_method(frame)
        elif isinstance(frame, ContentHeader):
            if (content := self._contents.get(number)) is not None:
                content.header, content.missing = frame, frame.body_size
                self._finish(number, content)
        elif isinstance(
            frame, commands.Basic.Deliver | commands.Basic.Return | commands.Basic.GetOk
        ):
            self._contents[number] = _Content(frame)
        elif (channel := self._channels.get(number)) is not None:
            channel.take(frame)

    def _take_body(self, number: int, data: bytes) -> None:
        if (content := self._contents.get(number)) is not None:
            content.pieces.append(data)
            content.missing -= len(data)
            self._finish(number, content)

    def _finish(self, number: int, content: _Content) -> None:
        if content.missing > 0 or content.header is None:
            return
        del self._contents[number]
        if (channel := self._channels.get(number)) is not None:
            properties = content.header.properties
            channel.take_content(content.method, properties, b"".join(content.pieces))

    def _take_connection_method(self, frame: Any) -> None:
        if (answer := self._ANSWERS.get(type(frame))) is not None:
            answer(self, frame)

    def _start(self, _: commands.Connection.Start) -> None:
        address = self._address
        response = f"\0{address.user}\0{address.password}"
        self.write_frame(commands.Connection.StartOk(dict(_PRODUCT), "PLAIN", response), 0)

    def _tune(self, frame: commands.Connection.Tune) -> None:
        self.frame_max = min(frame.frame_max or _FRAME_MAX, _FRAME_MAX)
        tuned = commands.Connection.TuneOk(
            frame.channel_max, self.frame_max, round(self._heartbeat)
        )
        self.write_frame(tuned, 0)
        self.write_frame(commands.Connection.Open(self._address.vhost), 0)

    def _open_ok(self, _: Frame) -> None:
        # Nothing is in hand yet, however long this took.
        self._said = self._loop.time()
        if not self.opened.done():
            self.opened.set_result(None)

    def _closed(self, frame: commands.Connection.Close) -> None:
        self.write_frame(commands.Connection.CloseOk(), 0)
        self._flush()
        self.fail(Broken(f"RabbitMQ closed: {frame.reply_code} {frame.reply_text}"))

    def _close_ok(self, _: Frame) -> None:
        self.fail(Broken("closed"))

    def _blocked(self, frame: commands.Connection.Blocked) -> None:
        if not self.is_blocked:
            logger.warning(
                "RabbitMQ takes no messages (%s): sends wait up to send_timeout", frame.reason
            )
        self.is_blocked = True

    def _unblocked(self, _: Frame) -> None:
        logger.warning("RabbitMQ takes messages again")
        self.is_blocked = False
        self.on_unblocked()

    _ANSWERS: Final[dict[type[Any], Callable[[Any, Any], None]]] = {
        commands.Connection.Start: _start,
        commands.Connection.Tune: _tune,
        commands.Connection.OpenOk: _open_ok,
        commands.Connection.Close: _closed,
        commands.Connection.CloseOk: _close_ok,
        commands.Connection.Blocked: _blocked,
        commands.Connection.Unblocked: _unblocked,
    }


class _Content:
    __slots__ = ("header", "method", "missing", "pieces")

    def __init__(self, method: Frame) -> None:
        self.method = method
        self.header: ContentHeader | None = None
        self.pieces: list[bytes] = []
        self.missing = 0


async def connect(address: Address, heartbeat: int, seconds: float) -> AmqpConnection:
    """Connect and log in.

    Raises:
        Broken: If the broker refuses, or has not let us in within `seconds`.
        OSError: If there is no such broker.
    """
    loop = asyncio.get_running_loop()
    connection: AmqpConnection | None = None
    try:
        async with asyncio.timeout(seconds):
            _, connection = await loop.create_connection(
                lambda: AmqpConnection(address, heartbeat),
                address.host,
                address.port,
                ssl=address.tls,
            )
            await asyncio.shield(connection.opened)
    except TimeoutError:
        if connection is not None:
            connection.fail(Broken("RabbitMQ did not answer in time"))
        raise Broken("RabbitMQ did not answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise Broken(
            f"the certificate of {address} is not accepted: {error.verify_message}. Trust its "
            "authority by cacertfile in the URL, or by ssl_context"
        ) from error
    except ssl.SSLError as error:
        raise Broken(
            f"no TLS with {address}: {error.reason or error}. amqps needs the broker's port for TLS"
        ) from error
    except BaseException:
        if connection is not None:
            connection.fail(Broken("given up"))
        raise
    return connection
