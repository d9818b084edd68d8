"""What happens on an HTTP/2 connection, as its machine tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from channels.exceptions import RemoteProtocolError
from channels.wire.request import Request


@dataclass(slots=True)
class StreamOpened:
    """A request has begun."""

    stream_id: int
    request: Request


@dataclass(slots=True)
class StreamRefused:
    """A request broke a rule; `error.status` is the answer."""

    stream_id: int
    error: RemoteProtocolError


@dataclass(slots=True)
class StreamData:
    """Bytes of a request's body; `credit` is to be acknowledged once they are used."""

    stream_id: int
    data: bytes
    credit: int


@dataclass(slots=True)
class StreamEnded:
    """The peer sends no more on this stream."""

    stream_id: int


@dataclass(slots=True)
class StreamReset:
    """The stream is gone."""

    stream_id: int


@dataclass(slots=True)
class WindowOpened:
    """More may be sent, on one stream or on all."""


@dataclass(slots=True)
class Drained:
    """The peer has seen the first GOAWAY: what it opened before has come."""


@dataclass(slots=True)
class ConnectionFailed:
    """The connection is over: the peer broke a rule, or is over a bound (`flood` names it)."""

    why: str
    flood: str = ""


Event: TypeAlias = (
    StreamOpened
    | StreamRefused
    | StreamData
    | StreamEnded
    | StreamReset
    | WindowOpened
    | Drained
    | ConnectionFailed
)

WINDOW_OPENED: Final = WindowOpened()
DRAINED: Final = Drained()
