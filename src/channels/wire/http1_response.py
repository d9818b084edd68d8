"""The response side of HTTP/1.1: what an application says, as bytes.

RFC 9112 section 6.3 decides how the end of the body is told:

    HEAD, 204, 304              no body
    205                         no body, and Content-Length: 0 says so
    Content-Length given        that many bytes; what is more is left out and counted
    whole body in one piece     Content-Length added
    HTTP/1.1                    chunks
    HTTP/1.0                    the end of the connection

Trailers stand behind chunks (RFC 9112 section 7.1.2); where there are none, they are left out.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from channels.wire.response import (
    Response,
    ResponseBody,
    ResponsePhase,
    ResponseTrailers,
    Stamp,
)

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_HELD: Final = ResponsePhase.HELD


class ResponseWriter(Response):
    """One response of HTTP/1.1, or to a client of HTTP/1.0.

    Args:
        http_version: The request's.
    """

    __slots__ = ("_chunked", "http_version")

    def __init__(self, method: str, http_version: str, keep_alive: bool, stamp: Stamp) -> None:
        super().__init__(method, stamp, keep_alive=keep_alive)
        self.http_version = http_version
        self._chunked = False

    @property
    def ends_with_connection(self) -> bool:
        """True if the peer takes the connection's end for the body's: a false one would deceive."""
        return self.has_begun and self._left is None and not self._chunked and not self.without_body

    def close_after(self) -> None:
        """Let this response be the connection's last; said in its head if that is not written."""
        self.keep_alive = False

    def body(self, event: ResponseBody) -> bytes:
        """The bytes for a piece of the body, after the head if that was held back.

        Raises:
            LocalProtocolError: If the response was not started or is complete, or the body ends
                before its Content-Length.  Nothing of this piece is written.
        """
        self._check_body()
        if self.without_body:
            data = self._head_bytes(event) if self._phase is _HELD else b""
        else:
            data = self._framed(event)
        self._sent(event)
        return data

    def _framed(self, event: ResponseBody) -> bytes:
        data = self._take_piece(event)
        head = self._head_bytes(event) if self._phase is _HELD else b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return head + chunk + (b"" if event.more or self._with_trailers else b"0\r\n\r\n")
        return head + data if head else data

    def trailers(self, event: ResponseTrailers) -> bytes:
        """The bytes that end a response with trailers; none while more of them follow.

        Raises:
            LocalProtocolError: If trailers may not be sent now, or a field may not be one.
        """
        fields = self._take_trailers(event)
        if fields is None or not self._chunked:
            return b""
        return b"".join([b"0\r\n", *(b"%b: %b\r\n" % pair for pair in fields), b"\r\n"])

    def _head_bytes(self, event: ResponseBody) -> bytes:
        names = self._names
        line = _STATUS_LINES.get(self._status) or b"HTTP/1.1 %d \r\n" % self._status
        if self.http_version == "1.0":
            # RFC 9110 section 6.2 lets a server answer so where a client may know no later version.
            line = b"HTTP/1.0" + line[len(b"HTTP/1.1") :]
        lines = [line]
        lines += [b"%b: %b\r\n" % pair for pair in self._head_fields()]
        lines += [line for name, _, line in self._stamp() if name not in names]
        if self._left is None and not self.without_body:
            lines.append(self._choose_framing(event))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        elif self.http_version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _choose_framing(self, event: ResponseBody) -> bytes:
        if not event.more and not self._with_trailers:
            # All of it is in this piece.
            self._left = 0
            return b"content-length: %d\r\n" % len(event.data)
        if self.http_version == "1.1":
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.keep_alive = False
        return b""
