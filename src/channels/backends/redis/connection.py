"""One connection to a Redis server: its greeting, its commands and their replies.

redis-py reads the settings; its connection object has them, and is never connected.  hiredis packs
and parses in C, and this protocol calls a function for each reply: no stream, no task to wake.
That is 40 of 60 µs of a reply.

A command leaves at once if no other is under way; all others of one turn of the loop leave
together, in one write.  A caller that is cancelled loses its answer, not the connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ResponseError

from channels.backends.redis.lua import STALE
from channels.backends.shell import Broken, abandon

Word = bytes | str | int
Settings = Connection | UnixDomainSocketConnection
OnReply = Callable[[Any], None]

#: Errors that mean: not this server, or not now.  The connection is made anew, which finds the
#: right one and loads the scripts again; what was under way is sent again, in order.
_NOT_HERE: Final = frozenset(
    {"ASK", "MOVED", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "NOSCRIPT", "READONLY"}
    | {"TRYAGAIN", "WRONGPASS", STALE}
)


#: Code of an error -> what to do about it.
_ADVICE: Final = {
    "NOAUTH": " Give its password in hosts.",
    "WRONGPASS": " Compare it with the password in hosts.",
}


def pack(command: Sequence[Word]) -> bytes:
    """A command as the server reads it."""
    # Its annotation says a tuple of one.
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]
    return packed


def error_of(text: str) -> Exception:
    """The exception for an error reply: `Broken`, or an answer to its command."""
    code, _, rest = text.partition(" ")
    if code in _NOT_HERE:
        return Broken(f"Redis: {text}{_ADVICE.get(code, '')}")
    return ResponseError(rest if code == "ERR" else text)


class RedisConnection(asyncio.Protocol):
    """A connection in RESP2.

    Attributes:
        on_reply: Gets each reply, an error's as a `ResponseError`; what it raises ends the
            connection.  At first it answers `call`.
        ended: Done with the reason when the connection has ended.
        heard: The loop's time when something came last.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.on_reply: OnReply = self._answer
        self.ended: asyncio.Future[Exception] = self._loop.create_future()
        self.heard = self._loop.time()
        self._transport: asyncio.Transport
        self._reader = hiredis.Reader(protocolError=Broken, replyError=error_of)
        self._unanswered: deque[asyncio.Future[Any]] = deque()
        #: Commands that leave with the end of the loop's turn.
        self._unsent: list[bytes] = []

    def call(self, *command: Word) -> asyncio.Future[Any]:
        """The reply to a command, which has its place in the order from now on.

        The future raises `ResponseError` if the server refuses the command, and `Broken` if the
        connection ends before.
        """
        data = pack(command)
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.ended.done():
            answer.set_exception(Broken("The connection to Redis has ended."))
            return answer
        is_alone = not self._unanswered
        self._unanswered.append(answer)
        if is_alone:
            # Nothing to be put together with: the commonest case, and the cheapest.
            self.heard = self._loop.time()
            self.write(data)
            return answer
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(data)
        return answer

    def write(self, data: bytes) -> None:
        """Send this as soon as may be, without waiting; the caller bounds what is under way.

        To a connection that has ended nothing is sent: `serve` says that it has.
        """
        # uvloop raises for a closed one, where asyncio says nothing.
        if not self._transport.is_closing():
            self._transport.write(data)

    def silent(self, now: float) -> float:
        """For how many seconds an answer to `call` has been awaited and nothing has come."""
        return now - self.heard if self._unanswered else 0.0

    async def serve(self) -> NoReturn:
        """Wait for the connection's end.

        Raises:
            Broken, OSError: Why it has ended; or what `on_reply` raised.
        """
        await asyncio.wait([self.ended])
        raise self.ended.result()

    def close(self) -> None:
        """Close it at once; what was not sent yet is dropped."""
        self._end(Broken("The connection to Redis was closed."))
        self._transport.abort()

    def abandon(self) -> None:
        """Close the descriptor without the loop."""
        abandon(self._transport)

    def _send(self) -> None:
        self.write(b"".join(self._unsent))
        self._unsent.clear()

    def _answer(self, reply: Any) -> None:
        if not self._unanswered:
            raise Broken(f"Redis answered unasked: {reply!r}")
        answer = self._unanswered.popleft()
        if answer.done():
            return
        if isinstance(reply, Exception):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _end(self, error: Exception) -> None:
        if self.ended.done():
            return
        self.ended.set_result(error)
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(Broken(str(error) or type(error).__name__))
        self._unanswered.clear()

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        self.heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, Broken):
                    raise reply
                self.on_reply(reply)
        except Exception as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or Broken("Redis has closed the connection"))


async def connect(settings: Settings) -> RedisConnection:
    """A connection that is authenticated and has its database selected.

    Raises:
        Broken, ResponseError, OSError: If that fails.
    """
    loop = asyncio.get_running_loop()
    if isinstance(settings, UnixDomainSocketConnection):
        _, connection = await loop.create_unix_connection(RedisConnection, settings.path)
    else:
        tls = settings.ssl_context.get() if isinstance(settings, SSLConnection) else None
        transport, connection = await loop.create_connection(
            RedisConnection, settings.host, settings.port, ssl=tls
        )
        if settings.socket_keepalive:
            found = transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            options: Any = settings.socket_keepalive_options or {}
            for option, value in options.items():
                found.setsockopt(socket.IPPROTO_TCP, option, value)
    try:
        await _greet(connection, settings)
    except BaseException:
        connection.close()
        raise
    return connection


async def _greet(connection: RedisConnection, settings: Settings) -> None:
    provider = settings.credential_provider
    if provider is None and (settings.username or settings.password):
        provider = UsernamePasswordCredentialProvider(settings.username, settings.password)
    if provider is not None:
        credentials = await provider.get_credentials_async()
        try:
            await connection.call("AUTH", *credentials)
        except ResponseError as error:
            # Redis 5 knows no users.
            if "wrong number" not in str(error):
                raise
            await connection.call("AUTH", credentials[-1])
    if settings.client_name:
        await connection.call("CLIENT", "SETNAME", settings.client_name)
    if settings.db:
        await connection.call("SELECT", str(settings.db))
