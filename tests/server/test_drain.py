"""A server whose place another process takes: nobody is sent away, and not all at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from channels.kit.types import Receive, Scope, Send
from channels.server.server import RESTART_CODE
from tests.server.applications import echo
from tests.server.conftest import Running, Serve, settled

#: Longer than any test: only what ends the spread lets it end.
_NEVER_SECONDS = 600.0


async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


async def drain(running: Running, spread_seconds: float) -> asyncio.Future[None]:
    running.server.request_drain(spread_seconds)
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(running.server.stop())
    await asyncio.sleep(0)
    return stopping


async def closed_with(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as ended:
        await client.recv()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code


async def open_some(stack: AsyncExitStack, running: Running, count: int) -> list[ClientConnection]:
    host, port = running.server.addresses[0]
    return [await stack.enter_async_context(connect(f"ws://{host}:{port}/")) for _ in range(count)]


async def test_websockets_are_closed_with_1012_in_the_time_they_have(serve: Serve) -> None:
    running = await serve(accepts)
    async with AsyncExitStack() as stack:
        clients = await open_some(stack, running, 5)
        stopping = await drain(running, 0.1)
        codes = await asyncio.gather(*(closed_with(client) for client in clients))
        assert set(codes) == {RESTART_CODE}
        await stopping


async def test_they_are_not_closed_all_at_once_until_a_stop_ends_the_spread(serve: Serve) -> None:
    running = await serve(accepts)
    async with AsyncExitStack() as stack:
        first, *others = await open_some(stack, running, 3)
        stopping = await drain(running, _NEVER_SECONDS)
        # The first that was taken is closed at once; the others wait for their time.
        done, waiting = await asyncio.wait(
            [asyncio.ensure_future(closed_with(client)) for client in (first, *others)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert len(done) == 1
        running.server.request_stop()
        codes = {await end for end in [*done, *waiting]}
        assert codes == {RESTART_CODE}
        await stopping


async def test_an_idle_connection_has_one_more_request(serve: Serve) -> None:
    running = await serve(echo)
    fresh, used = [await running.connect() for _ in range(2)]
    used.get()
    assert (await used.answer())["connection"] != "close"
    await settled(lambda: running.server.connection_count == 2)
    stopping = await drain(running, _NEVER_SECONDS)
    for client in (fresh, used):
        client.get()
        answer = await client.answer()
        assert answer.status == 200
        assert answer["connection"] == "close"
        assert await client.rest() == b""
    await stopping


async def test_an_idle_connection_without_a_request_is_closed(serve: Serve) -> None:
    running = await serve(echo)
    client = await running.connect()
    await settled(lambda: running.server.connection_count == 1)
    stopping = await drain(running, 0.01)
    assert await client.rest() == b""
    await stopping


async def test_a_websocket_that_opens_while_draining_is_closed_with_1012(serve: Serve) -> None:
    running = await serve(accepts)
    client = await running.connect()
    await settled(lambda: running.server.connection_count == 1)
    stopping = await drain(running, _NEVER_SECONDS)
    client.send(
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    running.server.request_stop()
    frame = await client.reader.readexactly(4)
    assert frame == b"\x88\x02" + RESTART_CODE.to_bytes(2, "big")
    client.writer.close()
    await stopping
