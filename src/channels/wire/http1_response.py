"""The response side of HTTP/1.1: what an application says, as bytes.

The head is held back until the first piece of the body, so that a length can be given where the
application gave none, and an error in between can still be answered with another status.

RFC 9112 section 6.3 decides how the end of the body is told:

    HEAD, 204, 304              no body
    205                         no body, and Content-Length: 0 says so
    Content-Length given        that many bytes; what is more is left out and counted
    whole body in one piece     Content-Length added
    HTTP/1.1                    chunks
    HTTP/1.0                    the end of the connection

A body where none may be is not written, whatever the application says of its length: programs
answer 205 with one (and 204 and 304), and other servers take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, TypeAlias

from channels.exceptions import LocalProtocolError
from channels.kit.types import Headers
from channels.wire.fields import checked_fields

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: The server's own business (ASGI, "Response Start": Transfer-Encoding is ignored).
_HOP_BY_HOP: Final = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Gives names in lower case, each with the whole line for it.
Stamp: TypeAlias = Callable[[], Sequence[tuple[bytes, bytes]]]


@dataclass(slots=True)
class ResponseStart:
    """Status and fields of a response."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class ResponseBody:
    """A piece of a response's body."""

    data: bytes
    more: bool = False


class _Phase(Enum):
    IDLE = auto()
    HELD = auto()
    BODY = auto()
    COMPLETE = auto()


#: Python 3.11 takes 0.1 µs to find a member in its class; a response asks for one ten times.
_IDLE: Final = _Phase.IDLE
_HELD: Final = _Phase.HELD
_BODY: Final = _Phase.BODY
_COMPLETE: Final = _Phase.COMPLETE


class ResponseWriter:
    """One response.

    Args:
        method: The request's, because a response to HEAD has no body.
        http_version: The request's.
        keep_alive: False if the connection ends with this response.
        stamp: Gives the fields that are added where the application has not: Date, Server.
    """

    __slots__ = (
        "_chunked",
        "_head",
        "_headers",
        "_left",
        "_names",
        "_phase",
        "_stamp",
        "_status",
        "_without_body",
        "http_version",
        "is_complete",
        "keep_alive",
        "method",
        "size",
        "surplus",
    )

    def __init__(self, method: str, http_version: str, keep_alive: bool, stamp: Stamp) -> None:
        self.method = method
        self.http_version = http_version
        #: True if the connection outlives this response.
        self.keep_alive = keep_alive
        self._stamp = stamp
        self._phase = _IDLE
        self._status = 0
        self._headers: Headers = []
        #: The same by name, to see what is there.
        self._names: dict[bytes, bytes] = {}
        self._left: int | None = None
        self._chunked = False
        self._without_body = False
        #: Bytes of the body that were written, without framing.
        self.size = 0
        #: Bytes beyond the Content-Length that the application gave: they were left out.
        self.surplus = 0
        #: True once its last byte was written.
        self.is_complete = False

    @property
    def status(self) -> int:
        """The status, or 0 before there is one."""
        return self._status

    @property
    def missing_size(self) -> int:
        """Bytes of the body that were not written yet, where its length is known."""
        return self._left or 0

    @property
    def has_begun(self) -> bool:
        """True once bytes of it were written: another status is impossible from then on."""
        return self._phase is _BODY or self._phase is _COMPLETE

    @property
    def ends_with_connection(self) -> bool:
        """True if the peer takes the connection's end for the body's: a false one would deceive."""
        return (
            self.has_begun and self._left is None and not self._chunked and not self._without_body
        )

    def close_after(self) -> None:
        """Let this response be the connection's last; said in its head if that is not written."""
        self.keep_alive = False

    def forget(self) -> None:
        """Take back a head that was not written yet, so that an error can be answered instead.

        Raises:
            LocalProtocolError: If bytes of it were written.
        """
        if self.has_begun:
            raise LocalProtocolError("The response has begun; it cannot be taken back.")
        self._phase, self._left, self._status = _IDLE, None, 0

    def start(self, event: ResponseStart) -> None:
        """Take status and fields; nothing is written before the first piece of the body.

        Raises:
            LocalProtocolError: If there was a start before, or the status or a field is invalid.
        """
        if self._phase is not _IDLE:
            raise LocalProtocolError("The response has been started before.")
        status = event.status
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise LocalProtocolError(f"Status {status!r}: expected a number from 200 to 999.")
        self._left = None
        self._headers = self._check_headers(event.headers)
        self._status = status
        self._without_body = self.method == "HEAD" or status in {204, 205, 304}
        self._phase = _HELD

    def _check_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        checked = checked_fields(headers)
        self._names = names = dict(checked)
        length = names.get(b"content-length")
        if length is not None:
            is_alone = len(names) == len(checked) or _count(checked, b"content-length") == 1
            self._take_length(length, is_alone=is_alone)
        if _HOP_BY_HOP.isdisjoint(names):
            return checked
        if any(name == b"connection" and b"close" in value.lower() for name, value in checked):
            self.keep_alive = False
        return [pair for pair in checked if pair[0] not in _HOP_BY_HOP]

    def _take_length(self, value: bytes, *, is_alone: bool) -> None:
        if not is_alone or _LENGTH.fullmatch(value) is None:
            raise LocalProtocolError(f"Content-Length: {value!r}: expected one, a number of bytes.")
        self._left = int(value)

    def body(self, event: ResponseBody) -> bytes:
        """The bytes for a piece of the body, after the head if that was held back.

        Raises:
            LocalProtocolError: If the response was not started or is complete, or the body ends
                before its Content-Length.  Nothing of this piece is written.
        """
        if self._phase is _IDLE:
            raise LocalProtocolError("A response's body came before its start.")
        if self._phase is _COMPLETE:
            raise LocalProtocolError("The response was complete already.")
        if self._without_body:
            data = self._head_bytes(event) if self._phase is _HELD else b""
        else:
            data = self._framed(event)
        if event.more:
            self._phase = _BODY
        else:
            self._phase, self.is_complete = _COMPLETE, True
        return data

    def _framed(self, event: ResponseBody) -> bytes:
        data, size = event.data, len(event.data)
        if self._left is not None:
            if size > self._left:
                # Middleware that changes a body and forgets its length: pages that other servers
                # deliver, and that a client must not read into the next response.
                self.surplus += size - self._left
                data, size = data[: self._left], self._left
            if not event.more and size < self._left:
                raise LocalProtocolError(
                    f"The body is {self._left - size} bytes shorter than its Content-Length."
                )
        head = self._head_bytes(event) if self._phase is _HELD else b""
        self.size += size
        if self._left is not None:
            self._left -= size
        elif self._chunked:
            chunk = b"%x\r\n%b\r\n" % (size, data) if size else b""
            return head + chunk + (b"" if event.more else b"0\r\n\r\n")
        return head + data if head else data

    def _head_bytes(self, event: ResponseBody) -> bytes:
        headers, names = self._headers, self._names
        if self._status in {204, 205}:
            # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any
            # response with a status code of 1xx (Informational) or 204 (No Content)."
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if self._status == 205:
            # Section 15.3.6: "a server MUST NOT generate content in a 205 response".  Unlike 204
            # it has a body by the rules of framing: one of no bytes.
            headers.append((b"content-length", b"0"))
        line = _STATUS_LINES.get(self._status) or b"HTTP/1.1 %d \r\n" % self._status
        if self.http_version == "1.0":
            # RFC 9110 section 6.2 lets a server answer so where a client may know no later version.
            line = b"HTTP/1.0" + line[len(b"HTTP/1.1") :]
        lines = [line]
        lines += [b"%b: %b\r\n" % pair for pair in headers]
        lines += [line for name, line in self._stamp() if name not in names]
        if self._left is None and not self._without_body:
            lines.append(self._choose_framing(event))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        elif self.http_version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _choose_framing(self, event: ResponseBody) -> bytes:
        if not event.more:
            self._left = len(event.data)
            return b"content-length: %d\r\n" % self._left
        if self.http_version == "1.1":
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.keep_alive = False
        return b""


def _count(headers: Headers, name: bytes) -> int:
    return sum(pair[0] == name for pair in headers)
