"""How a process hears from the others: by a stream that keeps what was not read, or a subscription.

Either takes a connection of its own, which lives and dies with the one for commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

from channels.backends.redis.connection import RedisConnection, pack

#: Entries taken with one command, after which the loop's others run.
BATCH: Final = 100
#: Milliseconds for which a read waits at the server.
BLOCK: Final = 4000
#: Entries that were read and are still in an inbox, of those that count against its bound.
_READ_KEPT: Final = 50
_START: Final = b"0-0"


class StreamInbox:
    """A stream.

    It knows how far it has read.  Over the next connection it goes on from there, and what it has
    read is removed with a later command; so nothing is lost or left behind while the stream stands.

    Args:
        on_frame: Takes each entry.
        bound: Entries that the stream takes.
    """

    kind: ClassVar[str] = "s"
    longest_silence: ClassVar[float] = BLOCK / 1000

    def __init__(self, key: str, on_frame: Callable[[bytes], None], bound: int) -> None:
        self._key = key
        self._on_frame = on_frame
        self._keep = min(_READ_KEPT, bound // 50)
        self._last = _START
        self._is_idle = False
        self._read: list[bytes] = []
        self._is_trimming = False
        self._connection: RedisConnection

    async def read(self, connection: RedisConnection, kept: bool) -> None:
        if not kept:
            self._last = _START
            self._read.clear()
        self._connection = connection
        connection.on_reply = self._take
        self._ask(connection)

    def _ask(self, connection: RedisConnection) -> None:
        """Remove what was read and wait for more."""
        if connection is not self._connection:
            return
        data = pack(("XREAD", "COUNT", BATCH, "BLOCK", BLOCK, "STREAMS", self._key, self._last))
        self._is_trimming = bool(self._read) and (self._is_idle or len(self._read) >= self._keep)
        if self._is_trimming:
            data = pack(("XDEL", self._key, *self._read)) + data
        connection.write(data)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if self._is_trimming:
            self._is_trimming = False
            self._read.clear()
            return
        self._is_idle = not reply
        for _, entries in reply or ():
            for identity, fields in entries:
                self._last = identity
                self._read.append(identity)
                # Else deleted meanwhile, or put there by something else.
                if isinstance(fields, list) and len(fields) == 2:
                    self._on_frame(fields[1])
        # Who was woken by these runs first: the next read is under way while they work.
        asyncio.get_running_loop().call_soon(self._ask, self._connection)


class SubscriptionInbox:
    """A subscription: what is published while the process is not subscribed is lost to it.

    Args:
        on_frame: Takes what is published; not what is empty, which is a sign of life
            (`scripts.RENEW`).
    """

    kind: ClassVar[str] = "p"
    longest_silence: ClassVar[float] = 1.0

    def __init__(self, key: str, on_frame: Callable[[bytes], None], _bound: int) -> None:
        self._key = key
        self._on_frame = on_frame
        self._subscribed = asyncio.Event()

    async def read(self, connection: RedisConnection, kept: bool) -> None:  # noqa: ARG002 - nothing is
        self._subscribed.clear()
        connection.on_reply = self._take
        connection.write(pack(("SUBSCRIBE", self._key)))
        await self._subscribed.wait()

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if reply[0] == b"subscribe":
            self._subscribed.set()
        elif reply[2]:
            self._on_frame(reply[2])
