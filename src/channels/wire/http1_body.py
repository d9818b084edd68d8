"""The body of an HTTP/1.1 request: so many bytes, or chunks.

A reader takes what it may from the front of a buffer and leaves the rest, which is the next
request.  Chunks are read here and not by httptools, because that does not tell where they ended,
and bounds neither chunk extensions nor trailers.

RFC 9112 section 7.1:  chunk = size [ extension ] CRLF data CRLF;  last chunk has size 0, then
trailer fields, then CRLF.  Extensions and trailers are checked, bounded and dropped.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, Protocol

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import KIB, Limits
from channels.wire.http1_request import check_fields

#: A size line is 16 digits and an extension that nobody uses.
MAX_SIZE_LINE_BYTES: Final = 4 * KIB
#: Extension bytes of one body, so that chunks of one byte cannot carry kilobytes each.
MAX_EXTENSION_BYTES: Final = 16 * KIB

#: RFC 9112 section 7.1.1:  chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] ).
#: What was matched is never given up for another try: each is one pass over the line.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"
_EXTENSION: Final = (
    rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"\"))?"
)
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)((?:" + _EXTENSION + rb")*+)")
#: A size line of which the end is still to come: whole extensions, then perhaps a part of one.
_SIZE_LINE_SO_FAR: Final = re.compile(
    rb"[0-9A-Fa-f]{1,16}+(?:" + _EXTENSION + rb"(?=[ \t]*+(?:;|\r|\Z)))*+"
    rb"(?:\r|[ \t]*+(?:;[ \t]*+(?:"
    + _TOKEN
    + rb"[ \t]*+(?:=[ \t]*+(?:"
    + _QUOTED
    + rb"\\?)?)?)?)?)?"
)
_TRAILER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t\x20-\x7e\x80-\xff]*")
#: RFC 9110 section 6.5.1: framing, routing and the like never come in a trailer.
_NOT_IN_TRAILERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"trailer", b"te"}
)


#: LF without CR, CR without LF, and what no line of text has.
_NEVER_IN_TRAILERS: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class BodyReader(Protocol):
    """Takes a body from the front of a buffer."""

    @property
    def is_done(self) -> bool:
        """True once the whole body has been taken."""

    def take(self, buffer: bytearray) -> bytes:
        """The next bytes of the body; none if there are not enough in the buffer."""


class LengthBody:
    """A body of as many bytes as Content-Length said."""

    __slots__ = ("_most", "remaining")

    def __init__(self, length: int, limits: Limits) -> None:
        self.remaining = length
        self._most = limits.request_buffer_bytes

    @property
    def is_done(self) -> bool:
        return self.remaining == 0

    def take(self, buffer: bytearray) -> bytes:
        size = min(self.remaining, self._most)
        data = bytes(buffer[:size])
        del buffer[:size]
        self.remaining -= len(data)
        return data


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedBody:
    """A body in chunks."""

    __slots__ = ("_extension_bytes", "_limits", "_part", "_remaining", "_scanned")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part.SIZE
        self._remaining = 0
        self._scanned = 0
        self._extension_bytes = 0

    @property
    def is_done(self) -> bool:
        return self._part is _Part.DONE

    def take(self, buffer: bytearray) -> bytes:
        """The next bytes of the body, those of small chunks joined.

        What came before a fault is given first; the next call raises.

        Raises:
            RemoteProtocolError: If the chunks break a rule; the connection must be closed.
        """
        pieces: list[bytes] = []
        size = 0
        most = self._limits.request_buffer_bytes
        while size < most and self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                piece = bytes(buffer[: min(self._remaining, most - size)])
                if not piece:
                    break
                del buffer[: len(piece)]
                pieces.append(piece)
                size += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._part = _Part.DATA_END
            elif not self._take_framing(buffer, may_raise=not pieces):
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_framing(self, buffer: bytearray, *, may_raise: bool) -> bool:
        """Take what stands between the data; False if it is not whole yet, or is faulty."""
        try:
            return self._take_part(buffer)
        except RemoteProtocolError:
            if may_raise:
                raise
            return False

    def _take_part(self, buffer: bytearray) -> bool:
        if self._part is _Part.SIZE:
            return self._take_size(buffer)
        if self._part is _Part.DATA_END:
            return self._take_data_end(buffer)
        return self._take_trailers(buffer)

    def _take_size(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n", 0, MAX_SIZE_LINE_BYTES)
        if end < 0:
            if len(buffer) >= MAX_SIZE_LINE_BYTES or not _may_be_size_line(buffer):
                raise RemoteProtocolError(f"Malformed chunk size: {bytes(buffer[:80])!r}.")
            return False
        match = _SIZE_LINE.fullmatch(buffer, 0, end)
        if match is None:
            raise RemoteProtocolError(f"Malformed chunk size: {bytes(buffer[: min(end, 80)])!r}.")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise RemoteProtocolError(f"Chunk extensions of over {MAX_EXTENSION_BYTES} bytes.")
        self._remaining = int(match[1], 16)
        self._part = _Part.DATA if self._remaining else _Part.TRAILERS
        del match  # It holds the buffer, which cannot shrink meanwhile.
        del buffer[: end + 2]
        return True

    def _take_data_end(self, buffer: bytearray) -> bool:
        if not b"\r\n".startswith(buffer[:2]):
            raise RemoteProtocolError("A chunk's data is longer than its size.")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self._part = _Part.SIZE
        return True

    def _take_trailers(self, buffer: bytearray) -> bool:
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            self._part = _Part.DONE
            return True
        limit = self._limits.max_header_bytes
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end > limit or (end < 0 and len(buffer) > limit):
            raise RemoteProtocolError(f"Trailers of over {limit} bytes.", status=431)
        if end < 0:
            # One step back for a pair that arrived in two pieces.
            if _NEVER_IN_TRAILERS.search(buffer, max(0, self._scanned - 1)):
                raise RemoteProtocolError("A control character or bare newline in the trailers.")
            self._scanned = len(buffer)
            return False
        self._check_trailers(bytes(buffer[:end]))
        del buffer[: end + 4]
        self._part = _Part.DONE
        return True

    def _check_trailers(self, block: bytes) -> None:
        check_fields(b"\r\n" + block + b"\r\n\r\n", self._limits)
        for line in block.split(b"\r\n"):
            match = _TRAILER.fullmatch(line)
            if match is None or match[1].lower() in _NOT_IN_TRAILERS:
                raise RemoteProtocolError(f"Malformed or forbidden trailer: {line[:80]!r}.")


def _may_be_size_line(line: bytearray) -> bool:
    return not line or _SIZE_LINE_SO_FAR.fullmatch(line) is not None
