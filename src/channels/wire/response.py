"""A response, whichever version of HTTP carries it: what an application says of it, checked.

The head is held back until the first piece of the body, so that a length can be given where the
application gave none, and an error in between can still be answered with another status.

A body where none may be (HEAD, 204, 205, 304) is not written, whatever the application says of its
length: programs answer 205 with one (and 204 and 304), and other servers take it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from channels.exceptions import LocalProtocolError
from channels.kit.types import Headers
from channels.wire.fields import checked_fields

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: The server's own business (ASGI, "Response Start": Transfer-Encoding is ignored).
_HOP_BY_HOP: Final = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})
#: RFC 9110 section 6.5.1: trailers decide about neither framing, routing nor the content's form.
_NOT_IN_TRAILERS: Final = _HOP_BY_HOP | {
    *(b"content-length", b"content-encoding", b"content-type", b"content-range", b"host"),
    *(b"proxy-connection", b"set-cookie", b"te", b"trailer", b"upgrade"),
}

#: Gives names in lower case, each with its value and with the whole line of HTTP/1.1 for it.
Stamp: TypeAlias = Callable[[], Sequence[tuple[bytes, bytes, bytes]]]


@dataclass(slots=True)
class ResponseStart:
    """Status and fields of a response."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    #: True if trailers follow the body; the client has said that it takes them.
    trailers: bool = False


@dataclass(slots=True)
class ResponseBody:
    """A piece of a response's body."""

    data: bytes
    more: bool = False


@dataclass(slots=True)
class ResponseTrailers:
    """Fields that follow the body."""

    headers: Iterable[tuple[bytes, bytes]]
    more: bool = False


class ResponsePhase(Enum):
    """How far a response is."""

    IDLE = auto()
    HELD = auto()
    BODY = auto()
    TRAILERS = auto()
    COMPLETE = auto()


#: Python 3.11 takes 0.1 µs to find a member in its class; a response asks for one ten times.
_IDLE: Final = ResponsePhase.IDLE
_HELD: Final = ResponsePhase.HELD
_BODY: Final = ResponsePhase.BODY
_TRAILERS: Final = ResponsePhase.TRAILERS
_COMPLETE: Final = ResponsePhase.COMPLETE


class Response:
    """One response; a class for each version of HTTP writes it.

    Args:
        method: The request's, because a response to HEAD has no body.
        stamp: Gives the fields that are added where the application has not: Date, Server.
        keep_alive: False if the connection ends with this response.
    """

    __slots__ = (
        "_headers",
        "_left",
        "_names",
        "_phase",
        "_stamp",
        "_status",
        "_trailers",
        "_with_trailers",
        "is_complete",
        "keep_alive",
        "method",
        "size",
        "surplus",
        "without_body",
    )

    def __init__(self, method: str, stamp: Stamp, *, keep_alive: bool) -> None:
        self.method = method
        #: True if the connection outlives this response.
        self.keep_alive = keep_alive
        self._stamp = stamp
        self._phase = _IDLE
        self._status = 0
        self._headers: Headers = []
        #: The same by name, to see what is there.
        self._names: dict[bytes, bytes] = {}
        self._left: int | None = None
        self._with_trailers = False
        self._trailers: Headers = []
        #: True if no body is written, whatever the application gives.
        self.without_body = False
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
        return self._phase is not _IDLE and self._phase is not _HELD

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
        self.without_body = self.method == "HEAD" or status in {204, 205, 304}
        self._with_trailers = event.trailers
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

    def _take_piece(self, event: ResponseBody) -> bytes:
        """The part of a piece that fits into the Content-Length, which is counted as written.

        Raises:
            LocalProtocolError: If the body ends before its Content-Length; nothing is counted.
        """
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
            self._left -= size
        self.size += size
        return data

    def _check_body(self) -> None:
        if self._phase is _IDLE:
            raise LocalProtocolError("A response's body came before its start.")
        if self._phase is _COMPLETE or self._phase is _TRAILERS:
            raise LocalProtocolError("The response's body was complete already.")

    def _sent(self, event: ResponseBody) -> None:
        """Note that a piece has been written."""
        if event.more:
            self._phase = _BODY
        elif self._with_trailers:
            self._phase = _TRAILERS
        else:
            self._phase, self.is_complete = _COMPLETE, True

    def _take_trailers(self, event: ResponseTrailers) -> Headers | None:
        """All trailers, once they are known; none of a response without a body.

        Raises:
            LocalProtocolError: If they do not follow the body of a response that was started with
                trailers, or a field is invalid or has no place there.
        """
        if self._phase is not _TRAILERS:
            raise LocalProtocolError(
                "Trailers follow the whole body of a response that was started with trailers=True."
            )
        fields = checked_fields(event.headers)
        for name, _ in fields:
            if name in _NOT_IN_TRAILERS:
                raise LocalProtocolError(f"The field {name!r} has no place in trailers.")
        self._trailers += fields
        if event.more:
            return None
        self._phase, self.is_complete = _COMPLETE, True
        return [] if self.without_body else self._trailers

    def _head_fields(self) -> Headers:
        """The fields as they are sent, without those of the stamp."""
        headers = self._headers
        if self._status in {204, 205}:
            # RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any
            # response with a status code of 1xx (Informational) or 204 (No Content)."
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        if self._status == 205:
            # Section 15.3.6: "a server MUST NOT generate content in a 205 response".  Unlike 204
            # it has a body by the rules of framing: one of no bytes.
            headers.append((b"content-length", b"0"))
        return headers


def _count(headers: Headers, name: bytes) -> int:
    return sum(pair[0] == name for pair in headers)
