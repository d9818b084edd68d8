"""The outlet, through applications that lean on it."""

from __future__ import annotations

import asyncio

from channels.kit.types import Receive, Scope, Send
from tests.server.applications import body, respond, start
from tests.server.conftest import Serve


async def test_a_sender_that_waits_for_nothing_lets_others_be_served(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/quick":
            await respond(send, b"quick")
            return
        await send(start())
        while True:
            await send(body(b"x" * 1000, more=True))

    running = await serve(application)
    endless = await running.connect()
    endless.get("/endless")
    reading = asyncio.ensure_future(endless.rest())
    other = await running.connect()
    for _ in range(5):
        other.get("/quick")
        assert (await other.answer()).body == b"quick"
    endless.reset()
    await asyncio.wait({reading})


async def test_what_is_written_in_one_turn_leaves_in_one_piece(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(headers=[(b"content-length", b"5")]))
        for byte in b"hello":
            await send(body(bytes([byte]), more=True))
        await send(body())

    client = await (await serve(application)).connect()
    client.get()
    data = await client.reader.read(65536)
    assert data.endswith(b"\r\n\r\nhello")


async def test_a_refused_handshake_says_that_the_connection_closes(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("a refused handshake reaches no application")

    client = await (await serve(application)).connect()
    client.request("POST", "/", "Upgrade: websocket", "Connection: Upgrade")
    answer = await client.answer()
    assert (answer.status, answer["allow"]) == (405, "GET")
    assert answer["connection"] == "close"
    assert await client.rest() == b""
