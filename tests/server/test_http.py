from __future__ import annotations

import asyncio
import re

import pytest

from channels.exceptions import ClientDisconnected
from channels.kit.doors import find_mailbox
from channels.kit.types import Message, Receive, Scope, Send
from channels.server.counts import counts
from tests.server.applications import body, echo, read_body, respond, start
from tests.server.conftest import Serve, settled

KIB = 1024
MIB = 1024 * KIB


async def test_a_request_is_answered(serve: Serve) -> None:
    client = await (await serve(echo)).connect()
    client.request("POST", "/a%20b?c", "Content-Length: 5", body=b"hello")
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"POST /a b hello")
    assert answer["server"] == "channels"
    date = answer["date"]
    assert date is not None
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", date)


async def test_a_connection_serves_many_requests(serve: Serve) -> None:
    client = await (await serve(echo)).connect()
    for number in range(5):
        client.get(f"/{number}")
        assert (await client.answer()).body == f"GET /{number} ".encode()


async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(serve: Serve) -> None:
    first_may_end = asyncio.Event()
    called: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["path"])
        if scope["path"] == "/0":
            await first_may_end.wait()
        await respond(send, scope["path"].encode())

    client = await (await serve(application)).connect()
    for number in range(50):
        client.get(f"/{number}")
    await settled(lambda: called == ["/0"])
    first_may_end.set()
    assert [(await client.answer()).body for _ in range(50)] == [
        f"/{number}".encode() for number in range(50)
    ]


async def test_pipelined_requests_are_not_read_without_end(serve: Serve) -> None:
    first_may_end = asyncio.Event()
    answered = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answered
        await first_may_end.wait()
        answered += 1
        await respond(send)

    running = await serve(application, read_ahead_bytes=4 * KIB)
    client = await running.connect()
    client.writer.transport.set_write_buffer_limits(0)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 15_000 + b"\r\n") * 2 + b"\r\n"
    count = 1000
    client.send(request * count)
    drained = asyncio.ensure_future(client.writer.drain())
    done, _ = await asyncio.wait({drained}, timeout=0.2)
    assert not done, "30 MB were taken without an answer"
    first_may_end.set()
    for _ in range(count):
        await client.answer()
    await drained
    assert answered == count


async def test_requests_after_close_are_not_served(serve: Serve) -> None:
    running = await serve(echo)
    client = await running.connect()
    client.get("/1", "Connection: close")
    client.get("/2")
    answer = await client.answer()
    assert answer["connection"] == "close"
    assert await client.rest() == b""
    assert [record.path for record in running.records] == ["/1"]


async def test_http_1_0(serve: Serve) -> None:
    client = await (await serve(echo)).connect()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.answer())["connection"] == "keep-alive"
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await client.answer())["connection"] == "close"
    assert await client.rest() == b""


async def test_a_body_is_streamed_as_it_comes(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        while (event := await receive())["more_body"]:
            await send(body(event["body"].upper(), more=True))
        await send(body(event["body"].upper()))

    client = await (await serve(application)).connect()
    client.request("POST", "/", "Transfer-Encoding: chunked")
    client.send(b"5\r\nhello\r\n")
    assert (await client.head())["transfer-encoding"] == "chunked"
    assert await client.chunk() == b"HELLO"
    client.send(b"5\r\nworld\r\n")
    assert await client.chunk() == b"WORLD"
    client.send(b"0\r\n\r\n")
    assert await client.chunk() == b""


async def test_a_body_that_is_not_asked_for_stays_in_the_socket(serve: Serve) -> None:
    may_read = asyncio.Event()
    taken: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await may_read.wait()
        mailbox = find_mailbox(scope, receive)
        assert mailbox is not None
        while True:
            taken.append(mailbox.client_size)
            event = await receive()
            if not event["more_body"]:
                break
        await respond(send)

    client = await (await serve(application)).connect()
    client.writer.transport.set_write_buffer_limits(0)
    size = 30 * MIB
    client.request("POST", "/", f"Content-Length: {size}")
    client.send(bytes(size))
    drained = asyncio.ensure_future(client.writer.drain())
    done, _ = await asyncio.wait({drained}, timeout=0.2)
    assert not done, "30 MB were taken that nobody had asked for"
    may_read.set()
    assert (await client.answer()).status == 200
    await drained
    assert max(taken) <= 33


async def test_send_waits_while_the_client_does_not_read(serve: Serve) -> None:
    sent = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        for _ in range(500):
            await send(body(bytes(64 * KIB), more=True))
            sent += 64 * KIB
        await send(body())

    client = await (await serve(application)).connect()
    client.get()
    await settled(lambda: sent > 0)
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 16 * MIB, "the application's send never waited"
    assert len((await client.answer()).body) == 500 * 64 * KIB


async def test_a_client_that_never_reads_is_cut_off(serve: Serve) -> None:
    ended: list[BaseException] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        try:
            while True:
                await send(body(bytes(MIB), more=True))
        except OSError as error:
            ended.append(error)
            raise

    running = await serve(application, write_timeout=0.1)
    client = await running.connect()
    before = counts.cut["not_reading"]
    client.get()
    await settled(lambda: running.server.connection_count == 0)
    await settled(lambda: bool(ended))
    assert isinstance(ended[0], ClientDisconnected)
    assert counts.cut["not_reading"] == before + 1
    assert running.records[0].status == 200


async def test_a_client_that_never_reads_a_closing_answer_is_cut_off(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, bytes(30 * MIB), headers=[(b"connection", b"close")])

    running = await serve(application, write_timeout=0.1)
    client = await running.connect()
    client.get()
    await settled(lambda: bool(running.server.connection_count))
    await settled(lambda: running.server.connection_count == 0)


async def test_pipelined_requests_wait_unread_beyond_one_bound(serve: Serve) -> None:
    bound, count = 4 * KIB, 20_000
    waiting: list[int] = []
    numbers: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        (connection,) = running.server._connections
        if not waiting:
            # The first read brings the first request, and more behind it than may wait.
            await asyncio.sleep(0)
            assert not connection._reads
        waiting.append(connection.session._machine.buffered_bytes)  # type: ignore[union-attr]
        numbers.append(int(scope["path"][1:]))
        await respond(send, headers=[(b"content-length", b"0")])

    running = await serve(application, read_ahead_bytes=bound)
    client = await running.connect()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % each for each in range(count)))
    for _ in range(count):
        await client.reader.readuntil(b"\r\n\r\n")
    assert numbers == [*range(count)]
    # One read of a transport brings 256 KiB at most.
    assert max(waiting) <= bound + 256 * KIB


async def test_a_slow_reader_of_pipelined_answers_does_not_fill_the_memory(serve: Serve) -> None:
    called = 0

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called += 1
        await respond(send, bytes(MIB))

    client = await (await serve(application)).connect()
    for _ in range(60):
        client.get()
    await settled(lambda: called > 0)
    before = -1
    while before != called:
        before = called
        await asyncio.sleep(0.05)
    assert called < 20
    for _ in range(60):
        assert len((await client.answer()).body) == MIB


async def test_expect_continue_is_answered_when_the_body_is_asked_for(serve: Serve) -> None:
    asked = asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert find_mailbox(scope, receive) is None
        await asked.wait()
        await respond(send, await read_body(receive))

    client = await (await serve(application)).connect()
    client.request("POST", "/", "Expect: 100-continue", "Content-Length: 5")
    head = asyncio.ensure_future(client.head())
    done, _ = await asyncio.wait({head}, timeout=0.05)
    assert not done
    asked.set()
    assert (await head).status == 100
    client.send(b"hello")
    assert (await client.answer()).body == b"hello"


async def test_expect_continue_is_not_answered_if_nobody_asks(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no", status=403)

    client = await (await serve(application)).connect()
    client.request("POST", "/", "Expect: 100-continue", "Content-Length: 5")
    answer = await client.answer()
    assert answer.status == 403
    # The body may come or not, so the next request could not be told from it.
    assert answer["connection"] == "close"
    assert await client.rest() == b""


async def test_a_small_body_that_nobody_read_does_not_cost_the_connection(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, scope["path"].encode())

    client = await (await serve(application)).connect()
    client.request("POST", "/1", "Content-Length: 5")
    assert (await client.answer()).body == b"/1"
    client.send(b"hello")
    client.get("/2")
    assert (await client.answer()).body == b"/2"


async def test_a_large_body_that_nobody_read_ends_the_connection(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"no", status=403)

    client = await (await serve(application)).connect()
    client.request("POST", "/1", f"Content-Length: {10 * MIB}")
    client.send(bytes(MIB))
    assert (await client.answer()).status == 403
    assert await client.rest() == b""


async def test_too_large_a_body_is_answered_while_the_client_still_sends(serve: Serve) -> None:
    running = await serve(echo, max_body_bytes=1000)
    client = await running.connect()
    client.request("POST", "/", "Transfer-Encoding: chunked")
    client.send(b"10000\r\n" + bytes(65536) + b"\r\n")
    client.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
    assert (await client.answer()).status == 413
    assert await client.rest() == b""


async def test_disconnect_comes_when_the_response_is_complete(serve: Serve) -> None:
    events: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        waiting = asyncio.ensure_future(receive())
        await send(start())
        await send(body(b"hel", more=True))
        assert not waiting.done()
        await send(body(b"lo"))
        events.append(await waiting)
        events.append(await receive())

    client = await (await serve(application)).connect()
    client.get()
    assert (await client.answer()).body == b"hello"
    await settled(lambda: len(events) == 3)
    assert [event["type"] for event in events] == [
        "http.request",
        "http.disconnect",
        "http.disconnect",
    ]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_disconnect_comes_when_the_client_goes(serve: Serve, how: str) -> None:
    events: list[str] = []
    stopped: list[BaseException] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"hello", more=True))
        await receive()
        events.append((await receive())["type"])
        try:
            while True:
                await send(body(bytes(1000), more=True))
        except OSError as error:
            stopped.append(error)
            raise

    running = await serve(application)
    client = await running.connect()
    client.get()
    await client.head()
    if how == "close":
        await client.close()
    else:
        client.reset()
    await settled(lambda: bool(stopped))
    assert events == ["http.disconnect"]
    assert running.records[0].status == 200


async def test_a_body_cut_short_is_a_disconnect(serve: Serve) -> None:
    events: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] != "http.disconnect":
            events.append(event)

    client = await (await serve(application)).connect()
    client.request("POST", "/", "Content-Length: 10")
    client.send(b"hello")
    await settled(lambda: bool(events))
    client.half_close()
    assert (await client.answer()).status == 400
    assert events == [{"type": "http.request", "body": b"hello", "more_body": True}]


async def test_a_client_that_ended_its_half_is_still_answered(serve: Serve) -> None:
    client = await (await serve(echo)).connect()
    client.get("/1")
    client.get("/2")
    client.half_close()
    assert (await client.answer()).body == b"GET /1 "
    assert (await client.answer()).body == b"GET /2 "
    assert await client.rest() == b""


async def test_a_client_that_ended_its_half_counts_as_gone_after_a_moment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels.server.http.HALF_CLOSE_SECONDS", 0.02)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        await respond(send, b"late")

    client = await (await serve(application)).connect()
    client.get()
    client.half_close()
    assert (await client.answer()).body == b"late"


async def test_context_variables_do_not_pass_from_request_to_request(serve: Serve) -> None:
    import contextvars

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen = user.get()
        user.set("somebody")
        await respond(send, seen.encode())

    client = await (await serve(application)).connect()
    for _ in range(5):
        client.get()
    assert {(await client.answer()).body for _ in range(5)} == {b"nobody"}


async def test_access_records(serve: Serve) -> None:
    running = await serve(echo)
    client = await running.connect()
    client.request("POST", "/a%0ab?c=%1b", "Content-Length: 2", body=b"xy")
    await client.answer()
    client.send(b"rubbish\r\n")
    await client.answer()
    good, bad = running.records
    assert (good.kind, good.method, good.path) == ("http", "POST", "/a%0ab?c=%1b")
    assert (good.status, good.size) == (200, len("POST /a\nb xy"))
    assert good.client == client.writer.get_extra_info("sockname")
    assert 0 <= good.duration < 5
    assert (bad.method, bad.path, bad.status) == ("-", "-", 400)
