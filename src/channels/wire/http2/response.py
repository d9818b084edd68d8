"""The response side of an HTTP/2 stream: what an application says, as fields and data."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from channels.kit.types import Headers
from channels.wire.response import (
    Response,
    ResponseBody,
    ResponsePhase,
    ResponseTrailers,
    Stamp,
)

_STATUS_VALUES: Final = {status.value: b"%d" % status.value for status in HTTPStatus}
#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_HELD: Final = ResponsePhase.HELD
#: Section 8.2.2: fields about a connection of HTTP/1.1 that `Response` leaves to its writer.
_CONNECTION_FIELDS: Final = frozenset({b"proxy-connection", b"upgrade"})


class StreamResponse(Response):
    """One response of HTTP/2."""

    __slots__ = ()

    def __init__(self, method: str, stamp: Stamp) -> None:
        super().__init__(method, stamp, keep_alive=True)

    def body(self, event: ResponseBody) -> tuple[Headers | None, bytes]:
        """The fields of the head, before the first piece of the body, and the data for a piece.

        Raises:
            LocalProtocolError: If the response was not started or is complete, or the body ends
                before its Content-Length.  Nothing of this piece is written.
        """
        self._check_body()
        data = b"" if self.without_body else self._take_piece(event)
        head = self._head(event) if self._phase is _HELD else None
        self._sent(event)
        return head, data

    def trailers(self, event: ResponseTrailers) -> Headers | None:
        """The fields that end the stream; None while more of them follow.

        Raises:
            LocalProtocolError: If trailers may not be sent now, or a field may not be one.
        """
        return self._take_trailers(event)

    def _head(self, event: ResponseBody) -> Headers:
        names, status = self._names, self._status
        fields = [(b":status", _STATUS_VALUES.get(status) or b"%d" % status)]
        if _CONNECTION_FIELDS.isdisjoint(names):
            fields += self._head_fields()
        else:
            fields += [pair for pair in self._head_fields() if pair[0] not in _CONNECTION_FIELDS]
        fields += [(name, value) for name, value, _ in self._stamp() if name not in names]
        if self._left is None and not self.without_body and not event.more:
            # All of it is in this piece.
            self._left = 0
            fields.append((b"content-length", b"%d" % len(event.data)))
        return fields
