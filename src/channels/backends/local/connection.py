"""A process's socket to the hub, on the owner loop: requests, their answers, what comes unasked.

Written through `add_reader` and `add_writer`, without a task and without an asyncio transport: a
forked child, or a process whose loop was closed, lets go of it by closing one descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from channels.backends.local import frames
from channels.backends.local.frames import FrameError, Span, Splitter, frame
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, NodeGone, TransportDown

#: Octets read at a time: some 400 small messages, after which the loop's others run.
READ_OCTETS: Final = 32 * 1024
#: Between a ping and the next.  If nothing has come in between, the hub is taken for dead.
PING_SECONDS: Final = 5.0

_ENVELOPES: Final = frozenset({frames.GROUP, frames.NODE})

#: Frame kind, octets, where the name starts and ends, where the frame ends.
OnFrame = Callable[[int, bytes, int, int, int], None]


class HubRefused(ChannelFull):
    """The hub is at a bound."""


class HubConnection:
    """One connection to a hub.

    Args:
        on_envelope: Takes the envelopes for this process and its groups.
        on_frame: Takes what else is no answer.
        on_lost: Called once, when it has ended otherwise than by `close`.
        longest: Octets of the longest frame that is taken.
        buffer_octets: What may wait to be written.

    Attributes:
        is_up: The hub has welcomed it.
        was_bid_farewell: The hub has ended in order: everything has come.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_envelope: Callable[[bytes], None],
        on_frame: OnFrame,
        on_lost: Callable[[BaseException], None],
        *,
        longest: int,
        buffer_octets: int,
    ) -> None:
        self.is_up = False
        self.was_bid_farewell = False
        self.hub_pid = 0
        #: Octets of the longest frame that the hub takes.
        self.longest = longest
        self._socket = connection
        self._on_envelope = on_envelope
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._splitter = Splitter(longest)
        self._loop = asyncio.get_running_loop()
        self._buffer_octets = buffer_octets
        self._out: list[bytes] = []
        self._chunk = memoryview(b"")
        self._out_octets = 0
        self._is_flush_due = False
        self._is_first = True
        self._is_blocked = False
        self._is_open = True
        #: Answers awaited, oldest first, and how many have come.
        self._pending: deque[asyncio.Future[None]] = deque()
        self._answered = 0
        self._heard = True
        #: libuv tells nothing more of a socket that ended with octets of ours unread, not even that
        #: it did, unless it is read until nothing is left.
        self._reads_all = not isinstance(self._loop, asyncio.BaseEventLoop)
        self._timer = self._loop.call_later(PING_SECONDS, self._ping)
        self._loop.add_reader(connection.fileno(), self._on_readable)

    # What the transport asks.

    def request(self, data: bytes) -> asyncio.Future[None]:
        """Send a request; the future ends with its answer.  In the order of the calls.

        Raises:
            ChannelLayerUnavailable: If the hub does not read and the buffer is full.
        """
        if self._out_octets > self._buffer_octets:
            raise ChannelLayerUnavailable(
                f"{self._out_octets} octets wait for the hub, process {self.hub_pid}, which does "
                "not read."
            )
        answer: asyncio.Future[None] = self._loop.create_future()
        self._pending.append(answer)
        self.write(data)
        return answer

    def write(self, data: bytes) -> None:
        """Send a frame that has no answer.

        The first after something has come leaves at once, which spares it a turn of the loop; what
        follows in that turn leaves in one write at its end.
        """
        self._out.append(data)
        self._out_octets += len(data)
        if self._is_flush_due or self._is_blocked or not self._is_open:
            return
        if self._is_first:
            self._is_first = False
            self._flush()
        else:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """End it; what can be written at once is."""
        if self._is_open:
            self._flush()
            self._end(TransportDown("The connection to the hub was closed."))

    def abandon(self) -> None:
        """Close the descriptor without touching the loop."""
        self._is_open = self.is_up = False
        self._socket.close()

    # Writing.

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._is_open and (self._chunk or self._out):
            if not self._chunk:
                self._chunk = memoryview(b"".join(self._out))
                self._out = []
            try:
                written = self._socket.send(self._chunk)
            except BlockingIOError:
                if not self._is_blocked:
                    self._is_blocked = True
                    self._loop.add_writer(self._socket.fileno(), self._on_writable)
                return
            except OSError:
                # The hub has gone.  What it wrote before is still to be read, up to the end.
                self._out, self._chunk, self._out_octets = [], memoryview(b""), 0
                return
            self._chunk = self._chunk[written:]
            self._out_octets -= written

    def _on_writable(self) -> None:
        self._is_blocked = False
        self._loop.remove_writer(self._socket.fileno())
        self._flush()

    # Reading.

    def _on_readable(self) -> None:
        count = self._read()
        if self._reads_all and count and (count == READ_OCTETS or self._read()):
            self._loop.call_soon(self._on_readable)

    def _read(self) -> int:
        """Take what has come; returns how many octets that was."""
        if not self._is_open:
            return 0
        try:
            data = self._socket.recv(READ_OCTETS)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose(error)
            return 0
        if not data:
            self._lose(ConnectionError(f"the hub, process {self.hub_pid}, has gone"))
            return 0
        count = len(data)
        self._heard = self._is_first = True
        try:
            data, spans = self._splitter.split(data)
            self._take(data, spans)
        except (ValueError, struct.error) as error:
            self._lose(error)
        return count

    def _take(self, data: bytes, spans: list[Span]) -> None:
        on_envelope, head = self._on_envelope, frames.HEAD.size
        for kind, start, name_end, end in spans:
            if kind in _ENVELOPES:
                on_envelope(data[name_end:end])
            elif kind == frames.ANSWERED:
                self._answer_up_to(frames.NUMBER.unpack_from(data, name_end)[0])
            elif kind == frames.REFUSED:
                self._refuse(data[name_end:end])
            elif kind == frames.GOAWAY:
                self.was_bid_farewell = True
            elif kind != frames.PONG:
                self._on_frame(kind, data, start + head, name_end, end)
            if not self._is_open:
                return

    def _answer_up_to(self, number: int) -> None:
        if not self._answered <= number <= self._answered + len(self._pending):
            raise FrameError(f"The hub has answered request {number}, which was not sent.")
        while self._answered < number:
            self._answered += 1
            answer = self._pending.popleft()
            if not answer.done():
                answer.set_result(None)

    def _refuse(self, body: bytes) -> None:
        number, reason = frames.REFUSED_BODY.unpack_from(body)
        self._answer_up_to(number - 1)
        if not self._pending:
            raise FrameError(f"The hub has refused request {number}, which was not sent.")
        text = str(body[frames.REFUSED_BODY.size :], "utf-8", "replace")
        self._answered += 1
        answer = self._pending.popleft()
        if not answer.done():
            error = NodeGone(text) if reason == frames.GONE else HubRefused(text)
            answer.set_exception(error)

    # The end.

    def _ping(self) -> None:
        if not self._heard:
            # What has come while this loop was blocked counts.
            self._on_readable()
            if not self._is_open:
                return
        if not self._heard:
            silence = f"has not answered for {PING_SECONDS:.0f} s"
            self._lose(ConnectionError(f"the hub, process {self.hub_pid}, {silence}"))
            return
        self._heard = False
        self.write(frame(frames.PING))
        self._timer = self._loop.call_later(PING_SECONDS, self._ping)

    def _lose(self, error: BaseException) -> None:
        if self._is_open:
            self._end(TransportDown(str(error)))
            self._on_lost(error)

    def _end(self, error: TransportDown) -> None:
        self._is_open = self.is_up = False
        self._timer.cancel()
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        while self._pending:
            answer = self._pending.popleft()
            if not answer.done():
                answer.set_exception(error)
                # Whoever awaited it may be cancelled by now.
                answer.exception()
