"""The server's half of one open WebSocket: bytes in, events out, and back.

Rules of this machine:

* Frames are taken from the input one at a time, when `next_event` asks, and each is an event: a
  shell that counts them, or looks at its clock, may stop at any.  Whoever stops asking holds raw
  bytes only: a flood of tiny frames never becomes a flood of objects.
* Sizes are judged at a frame's header, before its payload arrives; text is judged as it arrives, in
  the middle of a frame too.  All else (masks, reserved bits, the order of fragments, inflating,
  close payloads) is the library's to judge.
* What was complete before a violation is handed out first.  The close frame that answers a
  violation, or the peer's own close frame, is written by `finish`; until then the application may
  still speak.
* The peer and the application are told the same code.

Source: RFC 6455 sections 5 to 8, RFC 7692.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from websockets.frames import Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from channels.exceptions import LocalProtocolError, RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.assembly import INVALID_DATA, Assembly
from channels.wire.deflate import DEFLATE_FROM_BYTES, MAX_WINDOW_BITS, Deflate, deflate
from channels.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Header,
    apply_mask,
    close_payload,
    read_header,
    server_frame,
    unmask,
)

NORMAL: Final = 1000
INTERNAL_ERROR: Final = 1011
#: RFC 6455 section 7.4.1: two codes that never stand in a close frame.
NO_STATUS: Final = 1005
ABNORMAL: Final = 1006
#: IANA's registry: "Timeout".  An application is told it where the peer took nothing for too long;
#: no close frame gets through to such a peer.
TIMED_OUT: Final = 3008
#: Those that may: section 7.4.2 and the IANA registry.
SENDABLE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})

#: Longest payload whose length takes 7 or 7+16 bits.
_WHOLE_BYTES: Final = 65535
#: First byte of a final, uncompressed frame -> whether it is text.
_WHOLE_MESSAGES: Final = {0x80 | TEXT: True, 0x80 | BINARY: False}


class WebSocketPhase(enum.Enum):
    """Where the closing handshake stands."""

    OPEN = "open"
    #: The peer sent its close frame; ours is due.
    ANSWERING = "answering"
    #: The peer broke a rule; the close frame that says so is due.
    FAILING = "failing"
    #: We sent a close frame; the peer's is due.
    CLOSING = "closing"
    CLOSED = "closed"


#: (phase, what happened) -> next phase.  RFC 6455 sections 5.5.1, 7.1.4 and 7.1.7.  What is not in
#: the table changes nothing.
NEXT_PHASE: Final = {
    (WebSocketPhase.OPEN, "sent close"): WebSocketPhase.CLOSING,
    (WebSocketPhase.OPEN, "got close"): WebSocketPhase.ANSWERING,
    (WebSocketPhase.OPEN, "violation"): WebSocketPhase.FAILING,
    (WebSocketPhase.OPEN, "end of input"): WebSocketPhase.CLOSED,
    (WebSocketPhase.ANSWERING, "sent close"): WebSocketPhase.CLOSED,
    (WebSocketPhase.FAILING, "sent close"): WebSocketPhase.CLOSED,
    (WebSocketPhase.CLOSING, "got close"): WebSocketPhase.CLOSED,
    (WebSocketPhase.CLOSING, "violation"): WebSocketPhase.CLOSED,
    (WebSocketPhase.CLOSING, "end of input"): WebSocketPhase.CLOSED,
}
#: "After receiving a control frame indicating the connection should be closed, a peer discards any
#: further data received" (section 1.4); the same after a violation (7.1.7).
READING: Final = (WebSocketPhase.OPEN, WebSocketPhase.CLOSING)
SENDING: Final = (WebSocketPhase.OPEN, WebSocketPhase.ANSWERING, WebSocketPhase.FAILING)
#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_OPEN: Final = WebSocketPhase.OPEN


@dataclass(slots=True)
class Received:
    """A whole message: text as str, binary as bytes; `size` in bytes."""

    data: str | bytes
    size: int


@dataclass(slots=True)
class SilentFrame:
    """A frame that tells the application nothing.

    A ping, which has been answered; a pong; a message's part that is not its last; any but a close
    frame after our own close frame.
    """

    opcode: int

    @property
    def is_control(self) -> bool:
        return self.opcode >= CLOSE


@dataclass(slots=True)
class Ended:
    """Nothing more comes from the peer: the last event, once."""

    code: int
    reason: str


Event: TypeAlias = Received | SilentFrame | Ended


class WebSocket:
    """A WebSocket whose opening handshake is done."""

    __slots__ = (
        "_assembly",
        "_awaited",
        "_deflate",
        "_due",
        "_header",
        "_input",
        "_input_has_ended",
        "_library",
        "_most_inflated",
        "_output",
        "_position",
        "_ready",
        "_streams",
        "_whole",
        "ended",
        "phase",
    )

    def __init__(self, limits: Limits, compression: Deflate | None = None) -> None:
        self.phase = WebSocketPhase.OPEN
        #: What the last event said, once it has been made.
        self.ended: Ended | None = None
        self._deflate = compression
        self._assembly = Assembly(limits)
        self._input = b""
        self._position = 0
        self._input_has_ended = False
        self._header: Header | None = None
        self._awaited = 0
        self._streams = False
        self._ready: Event | None = None
        self._output: list[bytes] = []
        self._due = b""
        largest = limits.max_message_bytes
        #: Largest frame that `_whole_message` takes.
        self._whole = min(
            _WHOLE_BYTES,
            _WHOLE_BYTES if largest is None else largest,
            _WHOLE_BYTES if limits.max_frame_bytes is None else limits.max_frame_bytes,
        )
        #: Made for the first frame that is its to judge: most connections never have one.
        self._library: ServerProtocol | None = None
        # The library bounds what a frame inflates to.  Deflate may also make a frame longer, by 5
        # bytes in some 16 KiB: with less slack a message of exactly the limit would be refused.
        self._most_inflated = None if largest is None else largest + largest // 1000 + 1024

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_event` says what they meant."""
        if self.phase not in READING:
            return
        if self._position < len(self._input):
            data = self._input[self._position :] + data
        self._input = data
        self._position = 0

    def receive_eof(self) -> None:
        """The peer will send no more bytes."""
        self._input_has_ended = True

    def release(self) -> None:
        """Read nothing more: the connection is gone.

        The library's parser and its protocol refer to each other, and would keep half a message
        until the garbage collector comes.
        """
        library, self._library = self._library, None
        if library is not None:
            library.parser.close()
            library.parser_exc = None

    def next_event(self) -> Event | None:
        """The next event of the input, or None if it takes more input.

        Look at `data_to_send` afterwards: a ping is answered on the way.
        """
        if self._position == len(self._input) and not self._input_has_ended:
            return None
        try:
            while self.phase in READING:
                event: Event | None = self._whole_message()
                if event is None:
                    moved = self._advance()
                    event, self._ready = self._ready, None
                    if not moved:
                        break
                if event is not None:
                    is_late = self.phase is not _OPEN and isinstance(event, Received)
                    return SilentFrame(BINARY) if is_late else event
        except RemoteProtocolError as error:
            return self._end("violation", error.close_code, error.reason)
        if self._input_has_ended and self.phase in READING:
            return self._end("end of input", ABNORMAL, "")
        return None

    def _whole_message(self) -> Received | None:
        """A whole uncompressed message of up to 64 KiB between messages: the usual case.

        Only what leaves nothing to judge but its text is taken; that saves the library's five
        sixths of the time.
        """
        data, start = self._input, self._position
        if self._header is not None or self._assembly.is_open or len(data) - start < 6:
            return None
        is_text = _WHOLE_MESSAGES.get(data[start])
        # The second byte: the mask bit, then the length, or 126 before a length of two bytes.
        length, body = data[start + 1] - 0x80, start + 6
        if length == 126:
            length, body = data[start + 2] << 8 | data[start + 3], start + 8
            if length < 126:
                return None
        elif not 0 <= length < 126:
            return None
        end = body + length
        if is_text is None or length > self._whole or end > len(data):
            return None
        self._position = end
        payload = apply_mask(data[body:end], data[body - 4 : body])
        if not is_text:
            return Received(payload, length)
        try:
            return Received(payload.decode(), length)
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(
                f"A text message is UTF-8: {error.reason}.", close_code=INVALID_DATA
            ) from None

    def _advance(self) -> bool:
        """Take as much of one frame as is there; False if there was nothing to take."""
        start = self._position
        header = self._header
        if header is None:
            header = read_header(self._input, start)
            if header is None:
                return False
            self._begin(header)
            self._position += header.size
        elif start == len(self._input):
            return False
        piece = self._input[self._position : self._position + self._awaited]
        self._position += len(piece)
        self._awaited -= len(piece)
        library = self._ask_library(self._input[start : self._position])
        if self._streams:
            done = header.length - self._awaited - len(piece)
            self._assembly.add(
                unmask(piece, header.mask, done),
                is_last=header.is_final and not self._awaited,
            )
        if not self._awaited:
            self._header = None
            self._finish_frame(header, library)
        return True

    def _begin(self, header: Header) -> None:
        assembly = self._assembly
        self._streams = False
        if not header.is_control:
            assembly.judge(header)
            # A frame out of order is left to the library, which refuses it.
            if (header.opcode == CONTINUATION) == assembly.is_open:
                assembly.begin(header)
                self._streams = (
                    assembly.is_text and not assembly.is_compressed and not header.reserved
                )
        self._header = header
        self._awaited = header.length

    def _ask_library(self, data: bytes) -> ServerProtocol:
        library = self._library
        if library is None:
            library = self._library = ServerProtocol(state=OPEN, max_size=self._most_inflated)
            if self._deflate is not None:
                library.extensions = [self._deflate.extension]
        library.receive_data(data)
        # RFC 6455 section 5.4: "Control frames MAY be injected in the middle of a fragmented
        # message", a close frame too; the library reads it and then finds fault with it.
        if library.parser_exc is not None and library.close_rcvd is None:
            said = library.close_sent
            assert said is not None, "the library answers every violation of an open connection"
            raise RemoteProtocolError(said.reason, close_code=int(said.code))
        return library

    def _finish_frame(self, header: Header, library: ServerProtocol) -> None:
        # What the library would answer (pongs, the echo of a close) is written here, in its time.
        library.data_to_send()
        if (said := library.close_rcvd) is not None:
            self._ready = self._end("got close", int(said.code), said.reason)
            return
        (frame,) = library.events_received()
        assert isinstance(frame, Frame), "requests are not parsed here"
        payload = bytes(frame.data)
        # The library's parser keeps its last frame, until the next one or for good.
        frame.data = b""
        if header.opcode == PING:
            if self.phase is WebSocketPhase.OPEN:
                self._output.append(server_frame(PONG, payload))
        elif header.opcode != PONG:
            if not self._streams:
                self._assembly.add(payload, is_last=header.is_final)
            if header.is_final:
                self._ready = Received(*self._assembly.take())
                return
        self._ready = SilentFrame(header.opcode)

    def fail(self, code: int, reason: str) -> Ended:
        """End the input as a violation does, for a rule that the shell has."""
        return self._end("violation", code, reason)

    @property
    def is_inside_frame(self) -> bool:
        """True if the input ends with a part of a frame, once `next_event` has given None."""
        has_part = self._header is not None or self._position < len(self._input)
        return has_part and self.phase in READING

    def _end(self, happened: str, code: int, reason: str) -> Ended:
        if happened == "got close":
            self._due = b"" if code == NO_STATUS else close_payload(code, "")
        elif self.phase is WebSocketPhase.OPEN:
            self._due = close_payload(code, reason)
        else:
            code, reason = ABNORMAL, ""
        self._move(happened)
        self._input = b""
        self._position = 0
        self.ended = Ended(code, reason)
        return self.ended

    def _move(self, happened: str) -> None:
        self.phase = NEXT_PHASE.get((self.phase, happened), self.phase)

    def send(self, data: str | bytes) -> None:
        """Send a whole message, compressed where that was agreed and saves something.

        Raises:
            LocalProtocolError: If the closing handshake forbids it, or text holds a lone surrogate.
        """
        self._output.append(self.frame_of(data))

    def frame_of(self, data: str | bytes) -> bytes:
        """What `send` would send, for whoever writes it before anything else is sent.

        Raises:
            LocalProtocolError: As `send`.
        """
        if self.phase is not _OPEN:
            self._check_sending()
        if isinstance(data, str):
            opcode = TEXT
            try:
                data = data.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"Text must be valid Unicode: {error}.") from None
        else:
            opcode = BINARY
        agreed = self._deflate
        if agreed is not None and len(data) >= DEFLATE_FROM_BYTES:
            return server_frame(opcode, deflate(data, agreed.window_bits), compressed=True)
        return server_frame(opcode, data)

    def send_ping(self, payload: bytes = b"") -> None:
        """Ask the peer for a pong with the same payload, of at most 125 bytes."""
        self._check_sending()
        self._output.append(server_frame(PING, payload))

    def send_close(self, code: int = NORMAL, reason: str = "") -> None:
        """Begin the closing handshake, or end it if the peer began it (with the peer's code).

        The reason is cut after 123 bytes, which is what a close frame has room for.

        Raises:
            LocalProtocolError: If no close frame may carry the code, or a close frame was sent
                already.
        """
        if isinstance(code, bool) or code not in SENDABLE_CODES:
            raise LocalProtocolError(
                f"A close code is 1000 to 1003, 1007 to 1014, or 3000 to 4999: found {code!r}."
            )
        self._check_sending()
        if self.phase is WebSocketPhase.OPEN:
            self._output.append(server_frame(CLOSE, close_payload(code, reason)))
            self._move("sent close")
        else:
            self.finish()

    def finish(self) -> None:
        """Send the close frame that is due to the peer's close frame or violation, if one is."""
        if self.phase in {WebSocketPhase.ANSWERING, WebSocketPhase.FAILING}:
            self._output.append(server_frame(CLOSE, self._due))
            self._move("sent close")

    def _check_sending(self) -> None:
        if self.phase not in SENDING:
            raise LocalProtocolError(f"The WebSocket is {self.phase.value}: nothing can be sent.")

    def data_to_send(self) -> bytes:
        """The bytes to write now; empty if there are none."""
        output = self._output
        if not output:
            return b""
        data = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return data

    @property
    def close_expected(self) -> bool:
        """True once we have said our last: the connection closes now, or when the peer answers."""
        return self.phase not in SENDING

    @property
    def takes_deflate(self) -> bool:
        """True if the peer inflates frames that were compressed with the largest window."""
        return self._deflate is not None and self._deflate.window_bits == MAX_WINDOW_BITS
