"""Connections that stand still: each kind is closed by its own deadline."""

from __future__ import annotations

import asyncio

import pytest

from channels.kit.throttle import Throttle
from channels.kit.types import Receive, Scope, Send
from channels.server.counts import counts
from tests.server.applications import body, echo, start
from tests.server.conftest import Serve, settled

LONG = 60.0


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await asyncio.Event().wait()


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] != "http.disconnect" and event["more_body"]:
        pass


async def test_a_connection_that_says_nothing(serve: Serve) -> None:
    client = await (await serve(echo, keep_alive=0.05, header_timeout=LONG)).connect()
    assert await client.rest() == b""


async def test_an_idle_connection_between_requests(serve: Serve) -> None:
    client = await (await serve(echo, keep_alive=0.05, header_timeout=LONG)).connect()
    client.get()
    assert (await client.answer()).status == 200
    assert await client.rest() == b""


@pytest.mark.parametrize("data", [b"G", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_end(serve: Serve, data: bytes) -> None:
    client = await (await serve(echo, header_timeout=0.05, keep_alive=LONG)).connect()
    client.send(data)
    assert (await client.answer()).status == 408
    assert await client.rest() == b""


async def test_a_head_that_drips(serve: Serve) -> None:
    client = await (await serve(echo, header_timeout=0.1, keep_alive=LONG)).connect()

    async def drip() -> None:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
        while True:
            client.send(b"a")
            await asyncio.sleep(0.01)

    dripping = asyncio.ensure_future(drip())
    assert (await client.answer()).status == 408
    dripping.cancel()
    await asyncio.wait({dripping})


async def test_a_body_that_stalls(serve: Serve) -> None:
    running = await serve(echo, body_timeout=0.05)
    client = await running.connect()
    client.request("POST", "/", "Content-Length: 10", body=b"hello")
    assert (await client.answer()).status == 408
    assert await client.rest() == b""
    assert [record.status for record in running.records] == [408]


async def test_a_body_that_stalls_under_a_response(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"so far", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    client = await (await serve(application, body_timeout=0.05)).connect()
    client.request("POST", "/", "Content-Length: 10", body=b"hello")
    await client.head()
    assert await client.chunk() == b"so far"
    assert await client.rest() == b"", "the last chunk would say that the answer is whole"


@pytest.mark.parametrize("least", [0, 1])
async def test_a_body_that_drips_is_allowed_at_the_least_rate(serve: Serve, least: int) -> None:
    client = await (await serve(echo, body_timeout=0.2, min_body_rate=least)).connect()
    client.request("POST", "/", "Content-Length: 30")
    for _ in range(30):
        client.send(b"a")
        await asyncio.sleep(0.01)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("start", ["", "0\r\nA: "])
async def test_a_body_that_drips_below_the_least_rate(serve: Serve, start: str) -> None:
    running = await serve(read_all, body_timeout=0.2, min_body_rate=1000)
    client = await running.connect()
    framing = "Transfer-Encoding: chunked" if start else "Content-Length: 10000"
    client.request("POST", "/", framing, body=start.encode())
    before = counts.cut["slow_body"]

    async def drip() -> None:
        while True:
            client.send(b"a")
            await asyncio.sleep(0.01)

    dripping = asyncio.ensure_future(drip())
    assert (await client.answer()).status == 408
    dripping.cancel()
    await asyncio.wait({dripping})
    assert counts.cut["slow_body"] == before + 1


async def test_the_rate_is_averaged_over_each_span_anew(serve: Serve) -> None:
    # What came quickly at first is no credit for a drip later.
    client = await (await serve(read_all, body_timeout=0.1, min_body_rate=100)).connect()
    client.request("POST", "/", "Content-Length: 100000", body=bytes(50_000))
    for _ in range(1000):
        client.send(b"a")
        if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
            break
        await asyncio.sleep(0.02)
    assert (await client.answer()).status == 408


async def test_an_application_that_does_not_answer_is_named_in_the_log_once(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.application._unanswered", Throttle(0))
    may_answer = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/streams":
            await send(start())
            await send(body(b"so far", more=True))
        await may_answer.wait()
        if scope["path"] != "/streams":
            await send(start())
        await send(body())

    running = await serve(application, unanswered_notice=0.02)
    clients = [await running.connect() for _ in range(2)]
    clients[0].get("/hangs?token=secret")
    clients[1].get("/streams")
    await settled(lambda: bool(caplog.records))
    await asyncio.sleep(0.1)
    may_answer.set()
    for client in clients:
        assert (await client.answer()).status == 200
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "The application has not begun to answer after 0.02 s: GET /hangs, from 127.0.0.1:"
    )


async def test_a_body_that_the_application_does_not_take_is_no_fault_of_the_client(
    serve: Serve,
) -> None:
    may_read = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await may_read.wait()
        await echo(scope, receive, send)

    client = await (await serve(application, body_timeout=0.05)).connect()
    client.request("POST", "/", "Content-Length: 3000000", body=bytes(3_000_000))
    await asyncio.sleep(0.15)
    may_read.set()
    assert (await client.answer()).status == 200


async def test_an_application_that_never_answers(serve: Serve) -> None:
    running = await serve(never, http_timeout=0.05, close_timeout=0.05)
    client = await running.connect()
    client.get()
    answer = await client.answer()
    assert answer.status == 503
    assert await client.rest() == b""
    assert running.records[0].status == 503


async def test_an_application_that_never_ends_its_answer(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(headers=[(b"content-length", b"10")]))
        await send(body(b"hello", more=True))
        await never(scope, receive, send)

    client = await (await serve(application, http_timeout=0.05, close_timeout=0.05)).connect()
    client.get()
    await client.head()
    assert await client.rest() == b"hello"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_application_that_stays_after_its_client_is_cancelled(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("channels.server.http.HALF_CLOSE_SECONDS", 0.02)
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    running = await serve(application, close_timeout=0.05)
    client = await running.connect()
    client.get("/stays")
    await called.wait()
    if how == "close":
        await client.close()
    else:
        client.reset()
    await asyncio.wait_for(cancelled.wait(), 5)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "GET /stays" in line
    assert "cancelled" in line
    await settled(lambda: running.server.connection_count == 0)
