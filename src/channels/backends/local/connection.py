"""A socket between a process and the hub: what both ends do with it, and the process's end.

The process's end is on the owner loop, written and read through `add_reader` and `add_writer`,
without a task and without an asyncio transport: a forked child, or a process whose loop was closed,
abandons it by closing one descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from channels.backends.local.protocol import REPLIES, HubProtocolError, Kinds
from channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    MessageTooLarge,
    NodeGone,
    TransportDown,
)
from channels.layers.contract import Backlog

#: Octets read at a time: some 100 small messages, which take 2 ms; the loop's others run then.
READ_OCTETS: Final = 16 * 1024
#: Between a ping and the next.  If nothing has come in between, the hub is taken for dead.
PING_SECONDS: Final = 5.0


class HubStream:
    """A socket that carries messages, without waiting; one thread at a time.

    Args:
        longest: Octets of the longest message that is taken.
        kinds: What the other end may say.
        room: Where it is read into: so much at a time.
    """

    def __init__(
        self, connection: socket.socket, longest: int, kinds: Kinds, room: memoryview
    ) -> None:
        self.socket = connection
        #: Octets that wait to be sent.
        self.unsent = 0
        self.pack = msgpack.Packer().pack
        self._room = room
        self._kinds = {kind: [str, *fields] for kind, fields in kinds.items()}
        self._unpacker = msgpack.Unpacker(max_buffer_size=longest + len(room))
        self._unsent: list[bytes] = []
        self._chunk = memoryview(b"")

    def write(self, data: bytes) -> None:
        """Add a packed message to what `send_unsent` sends."""
        self._unsent.append(data)
        self.unsent += len(data)

    def send_unsent(self) -> bool:
        """Send as much as goes; True if nothing is left.

        Raises:
            OSError: If the other end has gone.
        """
        while self.unsent:
            if not self._chunk:
                self._chunk = memoryview(b"".join(self._unsent))
                self._unsent = []
            try:
                sent = self.socket.send(self._chunk)
            except BlockingIOError:
                return False
            self._chunk = self._chunk[sent:]
            self.unsent -= sent
        return True

    def read(self) -> list[list[Any]]:
        """What has come and is whole.

        Raises:
            BlockingIOError: If nothing has come.
            OSError: If the other end has gone.
            HubProtocolError: For what is none of `kinds`, or too long.
        """
        count = self.socket.recv_into(self._room)
        if not count:
            raise ConnectionError("it has closed the connection")
        try:
            self._unpacker.feed(self._room[:count])
            messages = list(self._unpacker)
            for message in messages:
                if [*map(type, message)] != self._kinds[message[0]]:
                    raise TypeError(f"these are not its fields: {message!r:.100}")
        except (LookupError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise HubProtocolError(f"Expected a message of the hub's protocol: {error!r}") from None
        return messages


class HubConnection(HubStream):
    """One process's connection to a hub: requests, their answers, what comes unasked.

    Args:
        handlers: Who takes the hub's replies, by kind, beside those that are handled here.
        on_lost: Called once, when it has ended otherwise than by `close`.
        longest: Octets of the longest message.
        buffer_octets: What may wait to be sent.

    Attributes:
        is_up: The hub has welcomed it.
        was_bid_farewell: The hub has ended in order: everything has come.
        longest: Octets of the longest message that the hub takes.
    """

    def __init__(
        self,
        connection: socket.socket,
        handlers: Mapping[str, Callable[..., None]],
        on_lost: Callable[[BaseException], None],
        longest: int,
        buffer_octets: int,
    ) -> None:
        super().__init__(connection, longest, REPLIES, memoryview(bytearray(READ_OCTETS)))
        self.is_up = False
        self.was_bid_farewell = False
        self.hub_pid = 0
        self.longest = longest
        self._handlers: dict[str, Callable[..., None]] = {
            **handlers,
            "answered": self._answer_up_to,
            "refused": self._refuse,
            "backlog": self._on_backlog,
            "goodbye": self._on_goodbye,
            "pong": lambda: None,
        }
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._buffer_octets = buffer_octets
        #: Nothing was written since something came, or since `send_unsent` is due.
        self._is_first = True
        self._is_flush_due = False
        self._is_blocked = False
        self._is_open = True
        #: Answers awaited, oldest first, and how many have come.
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._answered = 0
        self._heard = True
        #: libuv tells nothing more of a socket that ended with octets of ours unread, not even that
        #: it did, unless it is read until nothing is left.
        self._reads = 1 if isinstance(self._loop, asyncio.BaseEventLoop) else 2
        self._is_read_due = False
        self._timer = self._loop.call_later(PING_SECONDS, self._ping)
        self._loop.add_reader(connection.fileno(), self._on_readable)

    # What the transport asks.

    def request(self, *message: Any) -> asyncio.Future[Any]:
        """Send a request; the future ends with its answer.  In the order of the calls.

        Raises:
            ChannelLayerUnavailable: If the hub does not read and the buffer is full.
            MessageTooLarge: If it is longer than the hub takes.
        """
        if self.unsent > self._buffer_octets:
            raise ChannelLayerUnavailable(
                f"{self.unsent} octets wait for the hub, process {self.hub_pid}, which does not "
                "read."
            )
        data = self.pack(message)
        if len(data) > self.longest:
            raise MessageTooLarge(
                f"A message of {len(data)} octets is over the {self.longest} that the hub, "
                f"process {self.hub_pid}, takes: give all processes one max_message_bytes."
            )
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(answer)
        self.write(data)
        return answer

    def send(self, *message: Any) -> None:
        """Send what has no answer."""
        self.write(self.pack(message))

    def close(self) -> None:
        """End it; what can be sent at once is."""
        if self._is_open:
            self._flush()
            self._end(TransportDown("The connection to the hub was closed."))

    def abandon(self) -> None:
        """Close the descriptor without touching the loop."""
        self._is_open = self.is_up = False
        self.socket.close()

    # Writing.

    def write(self, data: bytes) -> None:
        """Have a packed message leave.

        The first after something has come leaves at once, which spares it a turn of the loop; what
        follows in that turn leaves in one write at its end.
        """
        super().write(data)
        if self._is_first:
            self._is_first = False
            self._flush()
        elif not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._is_open or self._is_blocked:
            return
        # If the hub has gone: what it wrote before is still to be read, up to the end.
        with contextlib.suppress(OSError):
            if not self.send_unsent():
                self._is_blocked = True
                self._loop.add_writer(self.socket.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        self._is_blocked = False
        self._loop.remove_writer(self.socket.fileno())
        self._flush()

    # Reading.

    def _on_readable(self, was_due: bool = False) -> None:
        if not self._is_open or (self._is_read_due and not was_due):
            return
        self._is_read_due = False
        try:
            for _ in range(self._reads):
                messages = self.read()
                self._heard = self._is_first = True
                for kind, *fields in messages:
                    self._handlers[kind](*fields)
                    if not self._is_open:
                        return
        except BlockingIOError:
            return
        except HubProtocolError as error:
            self._lose(error)
        except OSError as error:
            self._lose(ConnectionError(f"the hub, process {self.hub_pid}, has gone: {error}"))
        else:
            if self._reads > 1:
                # In one chain: the loop calls `_on_readable` in each of its turns meanwhile.
                self._is_read_due = True
                self._loop.call_soon(self._on_readable, True)

    def _answer_up_to(self, number: int) -> None:
        if not self._answered <= number <= self._answered + len(self._pending):
            raise HubProtocolError(f"The hub has answered request {number}, which was not sent.")
        while self._answered < number:
            self._end_request(None)

    def _refuse(self, number: int, is_gone: bool, reason: str) -> None:
        self._answer_up_to(number - 1)
        if not self._pending:
            raise HubProtocolError(f"The hub has refused request {number}, which was not sent.")
        self._end_request(NodeGone(reason) if is_gone else ChannelFull(reason))

    def _on_backlog(self, number: int, waiting: int, deadline: int) -> None:
        place = number - self._answered - 1
        if not 0 <= place < len(self._pending):
            raise HubProtocolError(f"The hub has answered request {number}, which was not sent.")
        if not self._pending[place].done():
            self._pending[place].set_result(Backlog(waiting, deadline))

    def _end_request(self, error: Exception | None) -> None:
        self._answered += 1
        answer = self._pending.popleft()
        if answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)
            # Whoever awaited it may be cancelled by now.
            answer.exception()

    def _on_goodbye(self) -> None:
        self.was_bid_farewell = True

    # The end.

    def _ping(self) -> None:
        if not self._heard:
            # What has come while this loop was blocked counts.
            self._on_readable(was_due=True)
            if not self._is_open:
                return
        if not self._heard:
            silence = f"has not answered for {PING_SECONDS:.0f} s"
            self._lose(ConnectionError(f"the hub, process {self.hub_pid}, {silence}"))
            return
        self._heard = False
        self.send("ping")
        self._timer = self._loop.call_later(PING_SECONDS, self._ping)

    def _lose(self, error: BaseException) -> None:
        if self._is_open:
            self._end(TransportDown(str(error)))
            self._on_lost(error)

    def _end(self, error: TransportDown) -> None:
        self._is_open = False
        self._timer.cancel()
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_reader(self.socket.fileno())
            self._loop.remove_writer(self.socket.fileno())
        self.socket.close()
        while self._pending:
            self._end_request(error)
