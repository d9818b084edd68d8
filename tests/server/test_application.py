"""What applications do wrong: each is answered at once, logged once, and harms nobody else."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from channels.exceptions import NoRouteFound, mark_logged
from channels.kit.types import Application, Message, Receive, Scope, Send
from tests.server.applications import body, echo, respond, start
from tests.server.conftest import Serve, settled


def says(*messages: Message) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


def raises(error: BaseException, *first: Message) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for message in first:
            await send(message)
        raise error

    return application


async def exits(scope: Scope, receive: Receive, send: Send) -> None:
    sys.exit(3)


async def cancels_itself(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


#: Faults before anything was written: 500, and the connection goes on.
EARLY: dict[str, Application] = {
    "returns at once": says(),
    "raises": raises(ValueError("boom")),
    "exits": exits,
    "cancels itself": cancels_itself,
    "raises after start": raises(ValueError("boom"), start()),
    "returns after start": says(start()),
    "body before start": says(body(b"x")),
    "starts twice": says(start(), start()),
    "unknown message": says({"type": "http.response.trailers"}),
    "no type": says({}),
    "no status": says({"type": "http.response.start"}),
    "status 42": says(start(42)),
    "status as text": says(start("200")),  # type: ignore[arg-type]
    "newline in a value": says(start(headers=[(b"a", b"b\r\nset-cookie: c")]), body()),
    "newline in a name": says(start(headers=[(b"a\r\nset-cookie", b"c")]), body()),
    "text in a header": says(start(headers=[("a", "b")]), body()),
    "headers that are no pairs": says(start(headers=[b"a"]), body()),
    "headers that are a number": says(start(headers=5), body()),
    "text as body": says(start(), {"type": "http.response.body", "body": "x"}),
    "body shorter than its length": says(start(headers=[(b"content-length", b"3")]), body(b"xy")),
    "two lengths": says(start(headers=[(b"content-length", b"3")] * 2), body(b"xyz")),
}


@pytest.mark.parametrize("name", EARLY)
async def test_faults_before_anything_was_written(
    serve: Serve, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = await serve(EARLY[name])
    client = await running.connect()
    for path in ("/1", "/2"):
        client.get(path)
        answer = await client.answer()
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert answer["set-cookie"] is None
    await settled(lambda: len(caplog.records) == 2)
    assert ["GET /1" in record.getMessage() for record in caplog.records] == [True, False]
    assert [record.status for record in running.records] == [500, 500]


@pytest.mark.parametrize(
    "pieces",
    [[body(b"helloyou")], [body(b"hel", more=True), body(b"loy", more=True), body(b"ou")]],
    ids=["whole", "in pieces"],
)
async def test_a_body_longer_than_its_length_is_cut_to_it(
    serve: Serve, pieces: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    application = says(start(headers=[(b"content-length", b"5")]), *pieces)
    client = await (await serve(application)).connect()
    for path in ("/1", "/2"):
        client.get(path)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"hello")
    await settled(lambda: len(caplog.records) == 2)
    assert "3 bytes longer than its Content-Length" in caplog.text
    assert "GET /1" in caplog.text


#: Faults after a part was written: what was said arrives, then the connection is cut.
LATE: dict[str, tuple[Application, bytes]] = {
    "raises": (raises(ValueError("boom"), start(), body(b"hello", more=True)), b"5\r\nhello\r\n"),
    "returns": (says(start(), body(b"hello", more=True)), b"5\r\nhello\r\n"),
    "says too little": (
        says(start(headers=[(b"content-length", b"7")]), body(b"hello", more=True), body(b"x")),
        b"hello",
    ),
    "starts again": (says(start(), body(b"hello", more=True), start()), b"5\r\nhello\r\n"),
}


@pytest.mark.parametrize("name", LATE)
async def test_faults_after_a_part_was_written(
    serve: Serve, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    application, expected = LATE[name]
    client = await (await serve(application)).connect()
    client.get()
    assert (await client.head()).status == 200
    assert await client.rest() == expected
    await settled(lambda: len(caplog.records) == 1)


async def test_a_cut_body_that_ends_with_the_connection_is_reset(serve: Serve) -> None:
    application = raises(ValueError("boom"), start(), body(b"hello", more=True))
    client = await (await serve(application)).connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await client.reader.read()


async def test_messages_after_the_end_are_an_error_for_the_application(serve: Serve) -> None:
    errors: list[BaseException] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"one")
        try:
            await send(body(b"two"))
        except OSError as error:
            errors.append(error)

    client = await (await serve(application)).connect()
    client.get()
    assert (await client.answer()).body == b"one"
    await settled(lambda: len(errors) == 1)


async def test_an_error_after_the_response_is_logged_and_nothing_else(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    application = raises(ValueError("boom"), start(), body(b"done"))
    client = await (await serve(application)).connect()
    for _ in range(3):
        client.get()
        assert (await client.answer()).body == b"done"
    await settled(lambda: len(caplog.records) == 3)


async def test_a_traceback_is_logged_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = await (await serve(raises(ValueError("boom")))).connect()
    client.get("/%0a?b")
    await client.answer()
    (record,) = caplog.records
    assert record.name == "django.channels.server"
    assert record.getMessage() == "Exception inside application: GET /%0a"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_what_a_consumer_has_logged_is_not_logged_again(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("boom")
    mark_logged(error)
    client = await (await serve(raises(error))).connect()
    client.get()
    assert (await client.answer()).status == 500
    assert caplog.records == []


async def test_no_route_is_404_in_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = await (await serve(raises(NoRouteFound("nothing matches")))).connect()
    client.get("/x")
    assert (await client.answer()).status == 404
    (record,) = caplog.records
    assert record.exc_info is None
    assert "GET /x" in record.getMessage()


async def test_one_fault_touches_no_other_connection(serve: Serve) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/bad":
            await send(start())
            await send(body(b"x", more=True))
            sys.exit(1)
        await echo(scope, receive, send)

    running = await serve(application)
    good = await running.connect()
    for _ in range(20):
        bad = await running.connect()
        bad.get("/bad")
        await bad.rest()
        good.get("/good")
        assert (await good.answer()).body == b"GET /good "


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (204, []),
        (304, []),
        (204, [(b"content-length", b"5")]),
        (205, []),
        (205, [(b"content-length", b"5")]),
    ],
)
async def test_a_body_that_must_not_be_is_not_sent(serve: Serve, status: int, headers: Any) -> None:
    client = await (await serve(says(start(status, headers), body(b"hello")))).connect()
    for _ in range(2):
        client.get()
        answer = await client.answer()
        assert (answer.status, answer.body) == (status, b"")


async def test_head_has_the_length_and_no_body(serve: Serve) -> None:
    application = says(start(headers=[(b"content-length", b"5")]), body(b"hello"))
    client = await (await serve(application)).connect()
    for _ in range(2):
        client.request("HEAD", "/")
        assert (await client.answer("HEAD"))["content-length"] == "5"


async def test_applications_of_asgi_2_are_understood(serve: Serve) -> None:
    class Old:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            await respond(send, self.scope["path"].encode())

    client = await (await serve(Old)).connect()
    client.get("/old")
    assert (await client.answer()).body == b"/old"
