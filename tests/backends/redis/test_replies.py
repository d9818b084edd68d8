"""Replies of Redis, as they come over a connection that redis-py has made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, NoScriptError, ResponseError

from channels.backends.redis import hosts
from channels.backends.redis.hosts import Host, OwnConnection
from channels.backends.redis.packing import pack, pack_slowly
from channels.backends.redis.replies import error_of


class Speaker:
    """A server that says what it is told to."""

    def __init__(self) -> None:
        self.writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # redis-py introduces itself by two commands.
        data = b""
        while data.count(b"SETINFO") < 2:
            data += await reader.read(1000)
        writer.write(b"+OK\r\n" * 2)
        self.writers.put_nowait(writer)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[OwnConnection, asyncio.StreamWriter]]:
    speaker = Speaker()
    listener = await asyncio.start_server(speaker.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connection = await Host(keywords={"host": "127.0.0.1", "port": port, "protocol": 2}).open()
    writer = await speaker.writers.get()
    yield connection, writer
    writer.close()
    await connection.disconnect(nowait=True)
    listener.close()
    await listener.wait_closed()


Ends = tuple[OwnConnection, asyncio.StreamWriter]


@pytest.mark.parametrize("has_hiredis", [True, False])
async def test_each_reply_comes_once_and_in_order_however_it_is_cut(
    ends: Ends, has_hiredis: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "HAS_HIREDIS", has_hiredis)
    connection, writer = ends
    got: asyncio.Queue[Any] = asyncio.Queue()
    serving = asyncio.create_task(connection.serve(got.put_nowait))
    said = b"+OK\r\n:7\r\n$3\r\na\r\n\r\n*2\r\n$1\r\nx\r\n*-1\r\n-NOSCRIPT gone\r\n$-1\r\n"
    for octet in said:
        writer.write(bytes([octet]))
        await writer.drain()
    found = [await got.get() for _ in range(6)]
    assert found[:4] == [b"OK", 7, b"a\r\n", [b"x", None]]
    assert type(found[4]) is NoScriptError
    assert found[5] is None
    writer.close()
    with pytest.raises(RedisConnectionError):
        await serving
    assert got.empty()


async def test_an_error_of_the_taker_ends_it_and_nothing_follows(ends: Ends) -> None:
    connection, writer = ends
    taken: list[Any] = []

    def take(reply: Any) -> None:
        taken.append(reply)
        raise ValueError("enough")

    writer.write(b":1\r\n:2\r\n")
    with pytest.raises(ValueError, match="enough"):
        await connection.serve(take)
    assert taken == [1]


@pytest.mark.parametrize("is_rude", [True, False])
async def test_a_connection_that_ended_before_it_was_served_is_not_waited_for(
    ends: Ends, is_rude: bool
) -> None:
    connection, writer = ends
    if is_rude:
        writer.transport.abort()
    else:
        writer.close()
    assert connection._reader is not None
    while not connection._reader.at_eof():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    with pytest.raises(RedisConnectionError):
        await asyncio.wait_for(connection.serve(lambda _: None), 20)


async def test_what_is_no_reply_ends_it(ends: Ends) -> None:
    connection, writer = ends
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(Exception, match="Protocol error"):
        await connection.serve(lambda _: None)


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("ERR no such thing", ResponseError, "no such thing"),
        ("WRONGTYPE of value", ResponseError, "WRONGTYPE of value"),
        ("NOSCRIPT No matching script.", NoScriptError, "No matching script."),
        ("MOVED 3999 127.0.0.1:6381", MovedError, "3999 127.0.0.1:6381"),
    ],
)
def test_an_error_has_the_class_that_redis_py_has_for_it(
    text: str, kind: type[Exception], shown: str
) -> None:
    found = error_of(text)
    assert type(found) is kind
    assert str(found) == shown


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("SET", "kü", b"\x00\r\n", 17, -1),
        ["XADD", b"", "", 10**15],
        (b"GET", "x" * 5000),
    ],
)
def test_a_command_is_packed_alike_with_and_without_hiredis(command: Any) -> None:
    assert pack(command) == pack_slowly(command)
