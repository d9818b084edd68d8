"""What a process and the hub say to each other.

A message is a msgpack array: its kind, then fields of the types below.  Times are milliseconds, and
points in time are by the machine's monotonic clock.

A process opens with "hello", says what it has joined and what it reads, and ends that with "ready";
the hub's "welcome" follows when the hub is ready too.  Requests are numbered by their place on the
connection, from 1.  "answered" says that all up to a number are done; "refused", that this one is
not, while all before it are.  So a thousand requests that are read at once cost one answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from channels.exceptions import ChannelsError

#: Of these messages.  Processes with another one are refused with a reason.
VERSION: Final = 4

Kinds = Mapping[str, list[type]]

#: What a process may say that has no answer, or one of its own.
STATEMENTS: Final[Kinds] = {
    # Version, process's name, last hub's epoch, whether that hub said good-bye, process's id.
    "hello": [int, str, bytes, bool, int],
    "ready": [],
    "ping": [],
    # Queue, how many are wanted, time of a lease.
    "demand": [str, int, int],
}
#: What it may ask for.
REQUESTS: Final[Kinds] = {
    "join": [str],
    "leave": [str],
    # Group, or process; envelope.
    "publish": [str, bytes],
    "push_node": [str, bytes],
    # Queue, envelope, capacity.
    "push": [str, bytes, int],
    # Queue, envelope, when it is due, how many delayed ones there may be.
    "push_later": [str, bytes, int, int],
    # Lease; when it may be taken again, whether this was an attempt; how long it runs from now.
    "acknowledge": [bytes],
    "release": [bytes, int, bool],
    "extend": [bytes, int],
    # Queue; "backlog" comes before the answer.
    "backlog": [str],
    # Group, queue; until when.
    "add_queue": [str, str, int],
    "discard_queue": [str, str],
    "flush": [],
}
#: What the hub may say.
REPLIES: Final[Kinds] = {
    # Hub's process, its epoch, whether nothing was lost since the last hub, longest message.
    "welcome": [int, bytes, bool, int],
    "turned_away": [str],
    "envelope": [bytes],
    # Queue, lease, how often the envelope was leased, envelope.
    "leased": [str, bytes, int, bytes],
    # Group, how many of its queues are full, how many it has.
    "over_capacity": [str, int, int],
    "gap": [],
    # Number of the request, how many wait, deadline of the oldest if there is one.
    "backlog": [int, int, int],
    "answered": [int],
    # Number of the request, whether what it is about (a process, a lease) is no more, reason.
    "refused": [int, bool, str],
    "pong": [],
    "goodbye": [],
}

#: What a message may hold beside its payload.
MARGIN: Final = 64 * 1024
#: More milliseconds than any layer waits.
_FOREVER: Final = 1 << 52


class HubProtocolError(ChannelsError, ValueError):
    """Octets that are no message, or one out of its place."""


def milliseconds(seconds: float) -> int:
    """As times are told: not less than `seconds`."""
    return math.ceil(min(seconds * 1000, _FOREVER))
