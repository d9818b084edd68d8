"""HTTP/1.1, the server's side of one connection: bytes in, events out.

One request at a time: what follows it stays in the buffer until `start_next_cycle`, so that answers
leave in the order of their requests, and nobody can make the server parse ahead without end.

    phase   input                                   event            next
    HEAD    a whole head, a body follows            Request          BODY
    HEAD    a whole head, no body follows           Request          DONE
    BODY    bytes of the body                       BodyChunk        BODY
    BODY    the body's end                          BodyChunk, last  DONE
    DONE    (stays in the buffer)                   -                HEAD by start_next_cycle
    any     a broken rule                           Failure          CLOSED
    HEAD    end of input with nothing begun         EndOfInput       CLOSED

After a Failure nothing more is read: where one message ends is in doubt, so the connection must be
closed once its answer has been sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from channels.exceptions import LocalProtocolError, RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.http1_body import BodyReader, ChunkedBody, LengthBody
from channels.wire.http1_request import (
    check_fields,
    check_request_line,
    check_request_line_so_far,
    read_head,
)
from channels.wire.http1_response import CONTINUE, ResponseWriter
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseStart, Stamp


@dataclass(slots=True)
class BodyChunk:
    """Bytes of the request's body; the last one may have none."""

    data: bytes
    more: bool = True


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """The peer sends no more requests."""


@dataclass(frozen=True, slots=True)
class Http2Preface:
    """The connection begins as one of HTTP/2: `take_buffer` has all of it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The peer broke a rule; `error.status` is the answer if none has begun."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Continue:
    """To be sent when the body of a request that expects it is wanted."""


Event: TypeAlias = Request | BodyChunk | EndOfInput | Http2Preface | Failure

END_OF_INPUT: Final = EndOfInput()
HTTP2_PREFACE: Final = Http2Preface()
#: RFC 9113 section 3.4: chosen so that a server of HTTP/1.1 reads nothing behind it.
_PREFACE_LINE: Final = b"PRI * HTTP/2.0\r\n"

#: In a head that is not whole yet: LF without CR, CR without LF, and what no line of text has.
_NEVER_IN_A_HEAD: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class HttpPhase(Enum):
    """How far the present request has been read."""

    HEAD = auto()
    BODY = auto()
    DONE = auto()
    CLOSED = auto()


#: Python 3.11 takes 0.1 µs to find a member in its class; a request asks for one twenty times.
_HEAD: Final = HttpPhase.HEAD
_BODY: Final = HttpPhase.BODY
_DONE: Final = HttpPhase.DONE
_CLOSED: Final = HttpPhase.CLOSED


class Http1Connection:
    """The server's side of one connection.

    A request without a body is complete with its `Request` event.

    Args:
        stamp: Gives the fields that every response carries: Date, Server.
        takes_preface: Whether HTTP/2 may begin in place of the first request.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_buffer",
        "_eof",
        "_limits",
        "_line",
        "_out",
        "_scanned",
        "_skipped_empty_line",
        "_stamp",
        "_takes_preface",
        "phase",
        "response",
    )

    def __init__(self, limits: Limits, stamp: Stamp = list, *, takes_preface: bool = False) -> None:
        self._limits = limits
        self._stamp = stamp
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._eof = False
        self._scanned = 0
        self._line: re.Match[bytes] | None = None
        self._skipped_empty_line = False
        self._body: BodyReader | None = None
        self._body_bytes = 0
        self._takes_preface = takes_preface
        self.phase = _HEAD
        #: The response to the present request; one without a request answers a Failure.
        self.response = ResponseWriter("GET", "1.1", False, stamp)

    # Input.

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_event` tells what they mean."""
        if self.phase is not _CLOSED:
            self._buffer += data

    def receive_eof(self) -> None:
        """The peer will send no more."""
        self._eof = True

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were received and not used yet: part of a message, or the next requests."""
        return len(self._buffer)

    @property
    def is_idle(self) -> bool:
        """True between two requests while nothing of the next one has come."""
        return self.phase is _HEAD and not self._buffer and not self._skipped_empty_line

    @property
    def head_begun(self) -> tuple[str, bytes] | None:
        """Method and target of the head that is being read or was refused, once they are known."""
        return None if self._line is None else (self._line[1].decode(), self._line[2])

    def take_buffer(self) -> bytes:
        """Hand over what was received and not used: the connection changes to another protocol."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self.phase = _CLOSED
        return rest

    def next_event(self) -> Event | None:
        """The next event, or None if it takes more input or the next cycle."""
        try:
            if self.phase is _HEAD:
                return self._next_head()
            if self.phase is _BODY:
                return self._next_body()
        except RemoteProtocolError as error:
            self.fail()
            return Failure(error)
        return None

    def fail(self) -> None:
        """Read nothing more: the peer broke a rule, perhaps one that only a clock can see."""
        if self.phase is _HEAD:
            self.response = ResponseWriter("GET", "1.1", False, self._stamp)
        self.response.close_after()
        self.phase = _CLOSED
        self._buffer.clear()

    def _next_head(self) -> Event | None:
        buffer = self._buffer
        if not self._skipped_empty_line and buffer[:1] == b"\r" and not self._skip_empty_line():
            return None
        if not buffer:
            return self._end_of_input() if self._eof else None
        if self._takes_preface and buffer.startswith(_PREFACE_LINE):
            return HTTP2_PREFACE
        if self._line is None and not self._take_line():
            self._check_incomplete()
            return None
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._check_head_size(len(buffer))
            self._check_incomplete()
            return None
        return self._take_head(end + 4)

    def _skip_empty_line(self) -> bool:
        # RFC 9112 section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received
        # prior to the request-line."
        if len(self._buffer) < 2 and not self._eof:
            return False
        if self._buffer[:2] != b"\r\n":
            raise RemoteProtocolError("A request begins with its method.")
        del self._buffer[:2]
        self._skipped_empty_line = True
        return True

    def _take_line(self) -> bool:
        """Check the request line as soon as it is whole; False before that."""
        limit = self._limits.max_request_line_bytes
        end = self._buffer.find(b"\r\n", max(0, self._scanned - 1), limit + 2)
        if end >= 0:
            self._line = check_request_line(bytes(self._buffer[:end]))
            return True
        if len(self._buffer) >= limit + 2:
            raise RemoteProtocolError(f"The request line is over {limit} bytes.", status=414)
        check_request_line_so_far(self._buffer)
        return False

    def _check_incomplete(self) -> None:
        """Refuse early what can never become a head: it must not wait for the timeout."""
        # One step back for a pair that arrived in two pieces.
        found = _NEVER_IN_A_HEAD.search(self._buffer, max(0, self._scanned - 1))
        if found is not None:
            raise RemoteProtocolError("A control character or a bare newline in a request's head.")
        if self._eof:
            raise RemoteProtocolError("The input ended inside a request's head.")
        self._scanned = len(self._buffer)

    def _check_head_size(self, size: int) -> None:
        assert self._line is not None, "checked before the head's end is looked for"
        limit = self._limits.max_header_bytes
        if size - self._line.end() - 3 * len(b"\r\n") > limit:
            raise RemoteProtocolError(f"The header block is over {limit} bytes.", status=431)

    def _take_head(self, size: int) -> Request:
        assert self._line is not None, "checked before the head's end is looked for"
        self._check_head_size(size)
        head = bytes(self._buffer[:size])
        check_fields(head, self._limits)
        request = read_head(head, self._line, self._limits)
        del self._buffer[:size]
        self._takes_preface = False
        self._scanned = 0
        self._line = None
        self._skipped_empty_line = False
        length = request.content_length
        if length == 0:
            self.phase = _DONE
        else:
            self._start_body(length)
        self.response = ResponseWriter(
            request.method, request.http_version, request.keep_alive, self._stamp
        )
        return request

    def _start_body(self, length: int | None) -> None:
        if length is not None:
            self._check_body_bytes(length)
        limits = self._limits
        self._body = ChunkedBody(limits) if length is None else LengthBody(length, limits)
        self._body_bytes = 0
        self.phase = _BODY

    def _check_body_bytes(self, size: int) -> None:
        most = self._limits.max_body_bytes
        if most is not None and size > most:
            raise RemoteProtocolError(f"The body is over {most} bytes.", status=413)

    def _next_body(self) -> Event | None:
        assert self._body is not None, "phase BODY has one"
        if data := self._body.take(self._buffer):
            self._body_bytes += len(data)
            self._check_body_bytes(self._body_bytes)
        if self._body.is_done:
            self.phase = _DONE
            return BodyChunk(data, more=False)
        if data:
            return BodyChunk(data)
        if self._eof:
            raise RemoteProtocolError("The input ended inside a request's body.")
        return None

    def _end_of_input(self) -> Event:
        self.phase = _CLOSED
        return END_OF_INPUT

    # Output.

    @property
    def can_start_next_cycle(self) -> bool:
        """True once request and response are complete and the connection goes on."""
        return self.phase is _DONE and self.response.is_complete and self.response.keep_alive

    def start_next_cycle(self) -> None:
        """Go on to the next request.

        Raises:
            LocalProtocolError: If the present request or its response is not complete, or the
                connection ends with it.
        """
        if not self.can_start_next_cycle:
            raise LocalProtocolError("The present request is not over, or it is the last one.")
        self.phase = _HEAD

    def send(self, event: ResponseStart | ResponseBody | Continue) -> None:
        """Say something to the peer; `data_to_send` has the bytes.

        Raises:
            LocalProtocolError: If it may not be said now, or would break the response; nothing of
                it will be sent.
        """
        if isinstance(event, ResponseBody):
            self._out.append(self.response.body(event))
        elif isinstance(event, ResponseStart):
            self.response.start(event)
        elif not self.response.has_begun:
            self._out.append(CONTINUE)

    def data_to_send(self) -> bytes:
        """The bytes to be written; each of them is given once."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data
