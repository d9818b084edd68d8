"""What goes over the socket between a process and the hub.

    octets  field
    4       length of name and body together
    1       kind
    2       length of the name
    n       name: a group, a queue or a node, UTF-8
    rest    body, as the kind says; envelopes are as in `layers/envelope.py`

All numbers are in network order.  A client opens with HELLO, says what it has joined and what it
reads, and ends that with READY; the hub's WELCOME follows when the hub is ready too.

Requests are JOIN, LEAVE, PUSH, ADD_QUEUE, DISCARD_QUEUE, FLUSH, GROUP, NODE, PUSH_LATER,
ACKNOWLEDGE, RELEASE and EXTEND.  They are numbered by their place on the connection, from 1.
ANSWERED says that all up to a number are done; REFUSED, that this one is not, while all before it
are.  So a thousand requests that are read at once cost one answer.

GROUP and NODE go out to the members as the very octets that came in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from channels.exceptions import ChannelsError

#: Of these frames.  Processes with another one are refused with a reason.
VERSION: Final = 2

# Client to hub.
HELLO: Final = 1
READY: Final = 2
JOIN: Final = 3
LEAVE: Final = 4
PUSH: Final = 5
ADD_QUEUE: Final = 8
DISCARD_QUEUE: Final = 9
FLUSH: Final = 10
PING: Final = 11
PUSH_LATER: Final = 12
LEASE: Final = 13
ACKNOWLEDGE: Final = 14
RELEASE: Final = 15
EXTEND: Final = 16
#: RELEASE without an answer, of a lease that met no demand.
UNWANTED: Final = 17
# Both ways.
GROUP: Final = 32
NODE: Final = 33
# Hub to client.
WELCOME: Final = 64
ANSWERED: Final = 65
REFUSED: Final = 66
OVER_CAPACITY: Final = 68
PONG: Final = 69
GAP: Final = 70
GOAWAY: Final = 71
TURNED_AWAY: Final = 72
LEASED: Final = 73

#: Why a request was refused.  GONE: the node, or the lease, is no more.
FULL: Final = 1
GONE: Final = 2

HEAD: Final = struct.Struct("!IBH")
#: Version, last hub's epoch, whether that hub said goodbye, process.  The name is the node's.
HELLO_BODY: Final = struct.Struct("!B8s?I")
#: Hub's process, its epoch, whether nothing was lost since the last hub, longest frame it takes.
WELCOME_BODY: Final = struct.Struct("!I8s?I")
NUMBER: Final = struct.Struct("!Q")
#: Number of the request, reason; a text follows.
REFUSED_BODY: Final = struct.Struct("!QB")
CAPACITY: Final = struct.Struct("!I")
EXPIRES: Final = struct.Struct("!d")
#: When it is due, by the machine's monotonic clock; how many delayed ones there may be.  The
#: envelope follows.
LATER_BODY: Final = struct.Struct("!dI")
#: How many are wanted, for how many seconds.
LEASE_BODY: Final = struct.Struct("!Id")
#: The lease, seconds until it may be taken again, whether this was an attempt.
RELEASE_BODY: Final = struct.Struct("!16sd?")
#: The lease, seconds from now.
EXTEND_BODY: Final = struct.Struct("!16sd")
#: The lease, how often the envelope was leased; the envelope follows.
LEASED_BODY: Final = struct.Struct("!16sB")
TALLY: Final = struct.Struct("!II")
_LENGTH: Final = struct.Struct("!I")

#: What a frame may hold beside its envelope: a batch of 500 names to join fits.
MARGIN: Final = 64 * 1024

#: (kind, where it starts, where its name ends, where it ends).
Span = tuple[int, int, int, int]


class FrameError(ChannelsError, ValueError):
    """Octets that are no frames, or one out of its place."""


def frame(kind: int, name: bytes = b"", body: bytes = b"") -> bytes:
    """A whole frame."""
    return HEAD.pack(len(name) + len(body), kind, len(name)) + name + body


def pack_many(parts: Iterable[bytes]) -> bytes:
    """Several byte strings as one body."""
    packed = []
    for part in parts:
        packed.append(_LENGTH.pack(len(part)))
        packed.append(part)
    return b"".join(packed)


def unpack_many(body: bytes) -> Sequence[bytes]:
    """The reverse.

    Raises:
        FrameError: If the lengths do not come out even.
    """
    parts, at = [], 0
    while at < len(body):
        if len(body) - at < _LENGTH.size:
            raise FrameError("A list ends inside a length.")
        end = at + _LENGTH.size + _LENGTH.unpack_from(body, at)[0]
        if end > len(body):
            raise FrameError("A list's last part is cut short.")
        parts.append(body[at + _LENGTH.size : end])
        at = end
    return parts


class Splitter:
    """Cuts a stream into frames.

    Args:
        longest: Octets of the longest frame.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        # Joined only when the frame is whole: a long one comes in hundreds of pieces.
        self._parts: list[bytes] = []
        self._held = 0
        self._need = HEAD.size

    def split(self, data: bytes) -> tuple[bytes, list[Span]]:
        """The frames that are whole by now, as spans of the octets returned.

        Raises:
            FrameError: If a frame is too long, or its name longer than itself.
        """
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._need:
                return b"", []
            data = b"".join(self._parts)
            self._parts = []
        spans: list[Span] = []
        start, stop, size = 0, len(data), HEAD.size
        need = size
        while stop - start >= size:
            length, kind, name_length = HEAD.unpack_from(data, start)
            if size + length > self._longest or name_length > length:
                raise FrameError(
                    f"Found a frame of {length} octets with a name of {name_length}: the longest "
                    f"frame has {self._longest}."
                )
            end = start + size + length
            if end > stop:
                need = end - start
                break
            spans.append((kind, start, start + size + name_length, end))
            start = end
        if start < stop:
            rest = data[start:] if start else data
            self._parts, self._held, self._need = [rest], len(rest), need
        return data, spans
