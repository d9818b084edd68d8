"""One connection to a Redis server: its greeting, and then each reply to a function.

redis-py reads the settings; its connection object has them, and is never connected.  hiredis packs
and parses in C, and this protocol calls a function for each reply: no stream, no task to wake.
That is 40 of 60 µs of a reply.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ResponseError

from channels.backends.shell import Broken, abandon

Word = bytes | str | int
Settings = Connection | UnixDomainSocketConnection
OnReply = Callable[[Any], None]

#: Errors that mean: not this server, or not now.  The connection is made anew, which finds the
#: right one and loads the scripts again; what was under way is sent again, in order.
_NOT_HERE: Final = frozenset(
    {"ASK", "MOVED", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOAUTH", "NOSCRIPT", "READONLY"}
    | {"TRYAGAIN", "WRONGPASS"}
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
            connection.
    """

    def __init__(self) -> None:
        self.on_reply: OnReply = _refuse
        self._transport: asyncio.Transport
        self._reader = hiredis.Reader(protocolError=Broken, replyError=error_of)
        #: Why the connection has ended.
        self._ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        """Send this as soon as may be, without waiting; the caller bounds what is under way.

        To a connection that has ended nothing is sent: `serve` says that it has.
        """
        # uvloop raises for a closed one, where asyncio says nothing.
        if not self._transport.is_closing():
            self._transport.write(data)

    async def serve(self) -> None:
        """Wait for the connection's end.

        Raises:
            Broken, OSError: Why it has ended; or what `on_reply` raised.
        """
        await asyncio.wait([self._ended])
        raise self._ended.result()

    async def ask(self, *command: Word) -> Any:
        """The reply to a command, while nothing else is under way.

        Raises:
            ResponseError: If the server refuses it.
            Broken, OSError: If the connection ends before.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_reply = answer.set_result
        self.write(pack(command))
        await asyncio.wait([answer, self._ended], return_when=asyncio.FIRST_COMPLETED)
        self.on_reply = _refuse
        if not answer.done():
            raise self._ended.result()
        if isinstance(answer.result(), Exception):
            raise answer.result()
        return answer.result()

    def close(self) -> None:
        """Close it at once; what was not sent yet is dropped."""
        self._end(Broken("The connection to Redis was closed."))
        self._transport.abort()

    def abandon(self) -> None:
        """Close the descriptor without the loop."""
        abandon(self._transport)

    def _end(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._ended.done():
            return
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


def _refuse(reply: Any) -> None:
    raise Broken(f"Redis answered unasked: {reply!r}")


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
            await connection.ask("AUTH", *credentials)
        except ResponseError as error:
            # Redis 5 knows no users.
            if "wrong number" not in str(error):
                raise
            await connection.ask("AUTH", credentials[-1])
    if settings.client_name:
        await connection.ask("CLIENT", "SETNAME", settings.client_name)
    if settings.db:
        await connection.ask("SELECT", str(settings.db))
