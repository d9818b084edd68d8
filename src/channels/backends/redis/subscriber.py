"""The subscribed connection of a process: what is published to its node and its groups."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from channels.backends.redis.connection import RedisConnection, pack
from channels.exceptions import TransportDown


class _Request:
    """A command for some channels, until the server has confirmed each."""

    __slots__ = ("confirmed", "left")

    def __init__(self, channels: int) -> None:
        self.left = channels
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Subscriber:
    """Subscribes and hands on.

    Args:
        on_frame: Takes what is published; not what is empty, which is a sign of life.
    """

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self._on_frame = on_frame
        self._connection: RedisConnection | None = None
        self._requests: deque[_Request] = deque()
        #: Set with everything that comes.
        self.heard = asyncio.Event()

    async def serve(self, connection: RedisConnection) -> None:
        """Hand on what comes over this connection, until it breaks; then close it."""
        self._connection, connection.on_reply = connection, self._take
        try:
            await connection.serve()
        finally:
            self._connection = None
            requests, self._requests = self._requests, deque()
            for request in requests:
                if not request.confirmed.done():
                    request.confirmed.set_exception(TransportDown("the subscription broke"))
            connection.close()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """From when it returns, what is published there arrives.

        Raises:
            TransportDown: If the connection is not there, or breaks.
        """
        await self._ask("SUBSCRIBE", channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """The reverse."""
        await self._ask("UNSUBSCRIBE", channels)

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    async def _ask(self, command: str, channels: Sequence[str]) -> None:
        connection = self._connection
        if connection is None:
            raise TransportDown("Redis is not connected")
        if not channels:
            return
        request = _Request(len(channels))
        self._requests.append(request)
        connection.write(pack((command, *channels)))
        await request.confirmed

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        self.heard.set()
        kind = bytes(reply[0])
        if kind == b"message":
            if reply[2]:
                self._on_frame(reply[2])
        elif kind in {b"subscribe", b"unsubscribe"} and self._requests:
            request = self._requests[0]
            request.left -= 1
            if not request.left:
                self._requests.popleft()
                if not request.confirmed.done():
                    request.confirmed.set_result(None)
