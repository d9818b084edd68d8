"""Replies as they come: what takes a connection over once redis-py has made it.

redis-py connects, authenticates and selects the database.  Then its transport gets another
protocol, which parses with hiredis and calls a function for each reply: no stream, no task to wake.
That is 40 of 60 µs of a reply.  Without hiredis redis-py goes on reading, and parses in Python.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

#: By the first word of an error; all others are a `ResponseError`.
_ERRORS: Final[dict[str, Callable[[str], Exception]]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "MOVED": MovedError,
    "NOAUTH": AuthenticationError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "TRYAGAIN": TryAgainError,
    "WRONGPASS": AuthenticationError,
}

HAS_HIREDIS: Final = hiredis is not None

OnReply = Callable[[Any], None]


def error_of(text: str) -> Exception:
    """The exception that redis-py has for an error."""
    code, _, rest = text.partition(" ")
    if code in _ERRORS:
        return _ERRORS[code](rest)
    return ResponseError(rest if code == "ERR" else text)


class Replies(asyncio.Protocol):
    """Gives each reply to `on_reply`, an error's as an exception.

    Attributes:
        ended: Fails with why the connection serves no more: the error that `on_reply` raised,
            `ConnectionError` of redis-py, or an OSError.
    """

    def __init__(self, on_reply: OnReply) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_reply = on_reply
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=error_of)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        reader, on_reply = self._reader, self._on_reply
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                if isinstance(reply, RedisConnectionError):
                    raise reply
                # What RESP3 says unasked is for clients that cache.
                if not isinstance(reply, hiredis.PushNotification):
                    on_reply(reply)
        except Exception as error:
            self.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(exc or RedisConnectionError("Redis has closed the connection"))

    def end(self, error: Exception) -> None:
        """Take no more replies."""
        if not self.ended.done():
            self.ended.set_exception(error)
