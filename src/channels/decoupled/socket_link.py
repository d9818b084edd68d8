"""A session over a Unix socket: MessagePack objects, one after the other, in both directions.

What is put in one turn of the loop leaves in one write, or in several if it is much.  The socket's
own buffers are the window: a peer that does not read lets this side's writing pause.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

import msgpack

from channels.decoupled.messages import ALIVE
from channels.decoupled.peer_link import LinkHost, PeerLink
from channels.kit.limits import MIB
from channels.kit.types import Message
from channels.layers.codec import MsgpackSerializer

#: What a message may have beside its event: a scope, or a state.
MARGIN_BYTES: Final = 2 * MIB

#: So many leave before the turn ends, and the other process begins with them while this one goes
#: on: echoes of 100 connections are 1.27 times as many as with one write at the turn's end.
WRITE_MESSAGES: Final = 16

_serializer: Final = MsgpackSerializer()
_ALIVE: Final = msgpack.packb(ALIVE)


class Greeter(Protocol):
    """The carrier, as its sockets see it."""

    def on_connected(self, link: SocketLink) -> None:
        """The socket is open; nothing was said."""

    def on_greeting(self, link: SocketLink, raw: Any) -> None:
        """The first that the other says."""

    def on_closed(self, link: SocketLink) -> None:
        """The socket has ended."""


class SocketLink(PeerLink, asyncio.Protocol):
    """One session, from the time when its socket is opened.

    Args:
        peer: The other's inbox; "" until it has said it.
        token: What the greeting shows.
    """

    __slots__ = (
        "_frames",
        "_greeter",
        "_host",
        "_is_paused",
        "_pending_bytes",
        "_transport",
        "_unpacker",
        "is_open",
        "token",
        "waiting",
    )

    def __init__(self, peer: str, token: bytes, host: LinkHost, greeter: Greeter) -> None:
        super().__init__(peer)
        self.token = token
        self._host = host
        self._greeter = greeter
        self._transport: asyncio.Transport | None = None
        longest = host.options.link_message_bytes + MARGIN_BYTES
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=longest)
        #: True once both have greeted.
        self.is_open = False
        #: What is to be sent when the socket is open.
        self.waiting: list[tuple[Message, int]] = []
        #: Of this turn of the loop, or of the time before the socket was open.
        self._frames: list[bytes] = []
        self._pending_bytes = 0
        self._is_paused = False

    # The socket.

    @property
    def socket(self) -> Any:
        """What the kernel is asked about the other side."""
        assert self._transport is not None, "asked once it is connected"
        return self._transport.get_extra_info("socket")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if not self.is_alive:
            self.abort()
            return
        self._transport.set_write_buffer_limits(high=self._host.options.link_bytes)
        self._greeter.on_connected(self)

    def data_received(self, data: bytes) -> None:
        self.missed = 0
        try:
            self._unpacker.feed(data)
            for raw in self._unpacker:
                if not self.is_alive:
                    return
                if not self.is_open:
                    self._greeter.on_greeting(self, raw)
                elif raw is not ALIVE:
                    self._host.heard(self, raw)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            self._host.drop("malformed", "What came over the socket is no message: %r", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self._greeter.on_closed(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._host.room(self)

    # As a link.

    @property
    def has_room(self) -> bool:
        """False while more than `link_bytes` wait for the peer."""
        return not self._is_paused and self._pending_bytes < self._host.options.link_bytes

    def put(self, message: Message, size: int) -> None:
        """Send a message behind all that were put before; does not wait.

        Raises:
            TypeError, ValueError, OverflowError: If it cannot be carried.
        """
        if self.is_open:
            self._write(_serializer.dumps(message))
        else:
            self.waiting.append((message, size))
            self._pending_bytes += size

    def open(self) -> None:
        """Both have greeted: send what waits."""
        self.is_open = True
        waiting, self.waiting = self.waiting, []
        had_room, self._pending_bytes = self.has_room, 0
        for message, size in waiting:
            self.put(message, size)
        if not had_room:
            self._host.room(self)

    def write(self, message: Message) -> None:
        """Write a message with all others of this turn of the loop."""
        self._write(_serializer.dumps(message))

    def _write(self, frame: bytes) -> None:
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._flush)
        self._frames.append(frame)
        self._pending_bytes += len(frame)
        if len(self._frames) >= WRITE_MESSAGES and self.has_room:
            self._flush()

    def _flush(self) -> None:
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        had_room, self._pending_bytes = self.has_room, 0
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        if not had_room and self.has_room:
            self._host.room(self)

    def beat(self) -> None:
        """A heartbeat has passed: say that this side lives."""
        if self.is_open:
            self._write(_ALIVE)

    def end(self) -> None:
        """The session is over: the other reads the end of the socket."""
        self.is_alive = False
        self.waiting.clear()
        self.abort()

    def close(self) -> None:
        """Say all that waits and that nothing follows; the other then closes the socket.

        To close it here would cut off what the other has not read, if it writes at that moment.
        """
        self.is_alive = False
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def abort(self) -> None:
        """Cut the socket."""
        if self._transport is not None:
            self._transport.abort()
