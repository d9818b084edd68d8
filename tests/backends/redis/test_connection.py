"""A connection to Redis: its greeting, its replies, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ResponseError

from channels.backends.redis.connection import RedisConnection, error_of, pack
from channels.backends.redis.hosts import make_host
from channels.backends.shell import Broken

Ends = tuple[RedisConnection, asyncio.StreamWriter]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.put_nowait(writer)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connection = await make_host({"host": "127.0.0.1", "port": port}).open()
    writer = await writers.get()
    yield connection, writer
    writer.close()
    connection.close()
    listener.close()
    await listener.wait_closed()


async def test_each_reply_comes_once_and_in_order_however_it_is_cut(ends: Ends) -> None:
    connection, writer = ends
    got: asyncio.Queue[Any] = asyncio.Queue()
    connection.on_reply = got.put_nowait
    said = b"+OK\r\n:7\r\n$3\r\na\r\n\r\n*2\r\n$1\r\nx\r\n*-1\r\n-WRONGTYPE of value\r\n$-1\r\n"
    for octet in said:
        writer.write(bytes([octet]))
        await writer.drain()
    found = [await got.get() for _ in range(6)]
    assert found[:4] == [b"OK", 7, b"a\r\n", [b"x", None]]
    assert type(found[4]) is ResponseError
    assert found[5] is None
    writer.close()
    with pytest.raises(Broken, match="closed"):
        await connection.serve()
    assert got.empty()


async def test_answers_find_their_calls(ends: Ends) -> None:
    connection, writer = ends
    calls = [connection.call("A", number) for number in range(3)]
    writer.write(b":10\r\n-ERR no\r\n:12\r\n")
    assert await calls[0] == 10
    with pytest.raises(ResponseError, match="no"):
        await calls[1]
    assert await calls[2] == 12


async def test_the_calls_of_one_turn_leave_in_order_and_in_two_writes(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, _ = ends
    written: list[bytes] = []
    monkeypatch.setattr(connection, "write", written.append)
    for number in range(4):
        connection.call("A", number)
    await asyncio.sleep(0)
    connection.call("A", 4)
    await asyncio.sleep(0)
    packed = [pack(("A", number)) for number in range(5)]
    assert written == [packed[0], b"".join(packed[1:4]), packed[4]]


async def test_a_cancelled_call_costs_nobody_else_anything(ends: Ends) -> None:
    connection, writer = ends
    first, second = connection.call("A"), connection.call("B")
    first.cancel()
    writer.write(b":1\r\n:2\r\n")
    assert await second == 2


async def test_the_end_is_told_to_all_calls(ends: Ends) -> None:
    connection, writer = ends
    waiting = [connection.call("A"), connection.call("B")]
    writer.close()
    for call in waiting:
        with pytest.raises(Broken):
            await call
    with pytest.raises(Broken, match="ended"):
        await connection.call("C")


async def test_it_is_silent_while_a_call_waits_and_nothing_comes(ends: Ends) -> None:
    connection, writer = ends
    now = asyncio.get_running_loop().time()
    assert connection.silent(now + 10) == 0
    calls = [connection.call("A"), connection.call("B")]
    assert 9 < connection.silent(now + 10) <= 10
    connection.heard -= 5
    writer.write(b":1\r\n")
    await calls[0]
    assert 9 < connection.silent(now + 10) <= 10
    writer.write(b":2\r\n")
    await calls[1]
    assert connection.silent(now + 10) == 0


@pytest.mark.parametrize("said", [b"-NOSCRIPT gone\r\n", b"-MOVED 1 a:2\r\n", b"-READONLY\r\n"])
async def test_a_server_that_is_not_the_right_one_now_is_left(ends: Ends, said: bytes) -> None:
    connection, writer = ends
    got: list[Any] = []
    connection.on_reply = got.append
    writer.write(said)
    with pytest.raises(Broken, match=said[1:5].decode()):
        await connection.serve()
    assert got == []


async def test_an_error_of_the_taker_ends_it_and_nothing_follows(ends: Ends) -> None:
    connection, writer = ends
    taken: list[Any] = []

    def take(reply: Any) -> None:
        taken.append(reply)
        raise ValueError("enough")

    connection.on_reply = take
    writer.write(b":1\r\n:2\r\n")
    with pytest.raises(ValueError, match="enough"):
        await connection.serve()
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
    with pytest.raises((Broken, OSError)):
        await connection.call("PING")
    with pytest.raises((Broken, OSError)):
        await connection.serve()
    # Nobody reads it, and it is no error.
    connection.write(b"PING")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+UNASKED\r\n"])
async def test_what_is_no_reply_ends_it(ends: Ends, said: bytes) -> None:
    connection, writer = ends
    writer.write(said)
    with pytest.raises(Broken, match=r"Protocol error|UNASKED"):
        await connection.serve()


async def test_a_server_without_users_gets_the_password_alone() -> None:
    """As Redis 5, which refuses AUTH with two words."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"-ERR wrong number of arguments for 'auth' command\r\n", b"+OK\r\n"):
            heard.append(await reader.read(1000))
            writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connection = await make_host({"address": f"redis://user:secret@127.0.0.1:{port}"}).open()
    connection.close()
    assert heard == [pack(("AUTH", "user", "secret")), pack(("AUTH", "secret"))]
    listener.close()


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [
        ("ERR no such thing", ResponseError, "no such thing"),
        ("WRONGTYPE of value", ResponseError, "WRONGTYPE of value"),
        ("NOSCRIPT No matching script.", Broken, "Redis: NOSCRIPT No matching script."),
        ("MOVED 3999 127.0.0.1:6381", Broken, "Redis: MOVED 3999 127.0.0.1:6381"),
    ],
)
def test_an_error_answers_its_command_or_ends_the_connection(
    text: str, kind: type[Exception], shown: str
) -> None:
    found = error_of(text)
    assert type(found) is kind
    assert str(found) == shown
