"""Trailers, early hints, files as bodies: ASGI's extensions for responses, over both versions."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.kit.types import Message, Receive, Scope, Send
from channels.server import file_body
from tests.server.applications import body, start
from tests.server.client import Client
from tests.server.conftest import Running, Serve, settled
from tests.server.http2_client import Http2Client, Response, dial_http2
from tests.wire.http2 import frames

TE = (b"te", b"trailers")
CHECKSUM = (b"x-checksum", b"7")


class Saying:
    """An application that sends these messages, and keeps the errors of those that it may not."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.errors: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for message in self.messages:
            try:
                await send(message)
            except (LocalProtocolError, OSError) as error:
                self.errors.append(error)


def trailers(*fields: tuple[bytes, bytes], more: bool = False) -> Message:
    return {"type": "http.response.trailers", "headers": fields, "more_trailers": more}


def hint(*links: bytes) -> Message:
    return {"type": "http.response.early_hint", "links": links}


def file(path: Any) -> Message:
    return {"type": "http.response.pathsend", "path": path}


STARTS = {**start(headers=[(b"trailer", b"x-checksum")]), "trailers": True}


async def over_http2(
    running: Running, *fields: tuple[bytes, bytes]
) -> tuple[Http2Client, Response]:
    port = running.server.addresses[0][1]
    assert port is not None
    async with dial_http2(port) as client:
        client.get(1, b"/", *fields)
        return client, await client.response(1)


def heads(client: Http2Client) -> list[list[tuple[bytes, bytes]]]:
    """The field sections of the first stream."""
    return [each.fields for each in client.frames if each.kind == frames.HEADERS]


async def over_http1(running: Running, *lines: str) -> bytes:
    """All that a client gets that asks for one response."""
    client = await running.connect()
    client.get("/", "Connection: close", *lines)
    return await client.reader.read()


async def test_a_scope_names_the_extensions(serve: Serve) -> None:
    scopes: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send(start())
        await send(body())

    running = await serve(application, http2=True)
    await over_http1(running)
    await over_http2(running)
    for scope in scopes:
        names = [name for name in scope["extensions"] if name.startswith("http.")]
        assert names == [
            "http.response.trailers",
            "http.response.early_hint",
            "http.response.pathsend",
        ]


PIECES = [
    [body(b"abc")],
    [body(b"a", more=True), body(b"bc", more=True), body()],
]


@pytest.mark.parametrize("pieces", PIECES)
async def test_trailers_over_http1_stand_behind_chunks(serve: Serve, pieces: list[Message]) -> None:
    running = await serve(
        Saying(STARTS, *pieces, trailers(CHECKSUM, more=True), trailers((b"B", b"c")))
    )
    client = await running.connect()
    client.get("/", "TE: deflate;q=0.5, Trailers")
    assert (await client.head())["transfer-encoding"] == "chunked"
    rest = await client.reader.readuntil(b"\r\n0\r\nx-checksum: 7\r\nb: c\r\n\r\n")
    assert b"\r\na" in b"\r\n" + rest or b"abc" in rest
    # The connection goes on.
    client.get("/", "TE: trailers")
    assert (await client.head()).status == 200


@pytest.mark.parametrize("pieces", PIECES)
async def test_trailers_over_http2_end_the_stream(serve: Serve, pieces: list[Message]) -> None:
    running = await serve(Saying(STARTS, *pieces, trailers(CHECKSUM)), http2=True)
    client, response = await over_http2(running, TE)
    assert response.body == b"abc"
    assert response.has_ended
    assert [each for each in client.frames if each.stream == 1][-1].fields == [CHECKSUM]


async def test_no_trailers_for_a_client_that_did_not_ask(serve: Serve) -> None:
    application = Saying(STARTS, body(b"abc"), trailers(CHECKSUM))
    running = await serve(application, http2=True)
    answer = await over_http1(running, "TE: trailerss")
    assert answer.endswith(b"content-length: 3\r\nconnection: close\r\n\r\nabc")
    client, response = await over_http2(running)
    assert response.body == b"abc"
    assert len(heads(client)) == 1
    assert application.errors == []


async def test_no_trailers_where_no_body_may_be_or_its_length_is_said(serve: Serve) -> None:
    sized = {**STARTS, "headers": [(b"content-length", b"3")]}
    running = await serve(Saying(sized, body(b"abc"), trailers(CHECKSUM)))
    assert (await over_http1(running, "TE: trailers")).endswith(b"\r\n\r\nabc")
    running = await serve(Saying({**STARTS, "status": 204}, body(), trailers(CHECKSUM)), http2=True)
    assert (await over_http1(running, "TE: trailers")).endswith(b"\r\n\r\n")
    client, response = await over_http2(running, TE)
    assert response.has_ended
    assert len(heads(client)) == 1


@pytest.mark.parametrize(
    "messages",
    [
        [start(), body(b"a", more=True), trailers(CHECKSUM), body()],
        [STARTS, trailers(CHECKSUM), body(), trailers()],
        [STARTS, body(), trailers((b"content-length", b"1")), trailers()],
        [STARTS, body(), trailers((b"Transfer-Encoding", b"chunked")), trailers()],
        [STARTS, body(), trailers((b"a", b"b\r\nc: d")), trailers()],
        [STARTS, body(), body(b"more"), trailers()],
    ],
)
async def test_trailers_that_may_not_be_sent(serve: Serve, messages: list[Message]) -> None:
    application = Saying(*messages)
    running = await serve(application)
    answer = await over_http1(running, "TE: trailers")
    (error,) = application.errors
    assert isinstance(error, LocalProtocolError)
    assert answer.endswith(b"0\r\n\r\n")


async def test_a_response_without_its_trailers_is_cut(serve: Serve) -> None:
    running = await serve(Saying(STARTS, body(b"abc")), http2=True)
    assert (await over_http1(running, "TE: trailers")).endswith(b"\r\n3\r\nabc\r\n")
    _, response = await over_http2(running, TE)
    assert response.reset == frames.INTERNAL_ERROR
    assert not response.has_ended


@pytest.mark.parametrize(
    "messages", [[hint(b"</a>; rel=preload"), start()], [start(), hint(b"</a>")]]
)
async def test_early_hints_come_before_the_response(serve: Serve, messages: list[Message]) -> None:
    running = await serve(Saying(*messages, hint(b"</b>", b"</c>"), body(b"abc")), http2=True)
    client, response = await over_http2(running)
    assert response.interim == [103, 103]
    assert (response.status, response.body) == (200, b"abc")
    first, second, _ = heads(client)
    assert first[1][0] == b"link"
    assert second == [(b":status", b"103"), (b"link", b"</b>"), (b"link", b"</c>")]


async def test_early_hints_are_too_late_or_of_no_use(serve: Serve) -> None:
    late = Saying(start(), hint(), body(b"a", more=True), hint(b"</a>"), body())
    running = await serve(late, http2=True)
    _, response = await over_http2(running)
    assert (response.interim, response.body) == ([], b"a")
    # Over HTTP/1.1 they are not sent.
    running = await serve(Saying(hint(b"</a>"), start(), body(b"abc")))
    assert (await over_http1(running)).startswith(b"HTTP/1.1 200 ")
    assert late.errors == []


@pytest.mark.parametrize("link", [b"</a>\r\nset-cookie: b", "text"])
async def test_a_hint_cannot_carry_another_field(serve: Serve, link: Any) -> None:
    application = Saying(hint(link), start(), body())
    running = await serve(application, http2=True)
    _, response = await over_http2(running)
    assert response.interim == []
    assert [type(error) for error in application.errors] == [LocalProtocolError]


SIZES = [0, 3, file_body.PIECE_BYTES, 5 * file_body.PIECE_BYTES + 1]


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_the_body(serve: Serve, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    application = Saying(start(), file(str(tmp_path / "a")))
    running = await serve(application, http2=True)
    client = await running.connect()
    client.get()
    assert (await client.answer()).body == content
    _, response = await over_http2(running)
    assert response.body == content
    client.request("HEAD", "/")
    assert (await client.answer("HEAD")).status == 200
    assert application.errors == []


async def test_a_file_and_trailers(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    running = await serve(Saying(STARTS, file(str(tmp_path / "a")), trailers(CHECKSUM)), http2=True)
    _, response = await over_http2(running, TE)
    assert (response.body, response.trailers) == (b"abc", [CHECKSUM])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/there/is/none", FileNotFoundError),
        ("setup.py", LocalProtocolError),
        (0, LocalProtocolError),
        (None, LocalProtocolError),
        ("/", LocalProtocolError),
        ("pipe", LocalProtocolError),
    ],
)
async def test_a_file_that_cannot_be_sent_leaves_the_answer_open(
    serve: Serve, tmp_path: Path, path: Any, expected: type[Exception]
) -> None:
    if path == "pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
    application = Saying(start(), file(path), body(b"none"))
    running = await serve(application)
    assert (await over_http1(running)).endswith(b"none")
    assert [type(error) for error in application.errors] == [expected]


async def test_a_file_is_not_mixed_with_a_body(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    application = Saying(start(), body(b"1", more=True), file(str(tmp_path / "a")), body(b"2"))
    running = await serve(application)
    answer = await over_http1(running)
    assert b"abc" not in answer
    assert answer.endswith(b"1\r\n2\r\n0\r\n\r\n")


async def test_a_file_shorter_than_said_is_an_error(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    sized = start(headers=[(b"content-length", b"5")])
    running = await serve(Saying(sized, file(str(tmp_path / "a"))), http2=True)
    _, response = await over_http2(running)
    assert response.status == 500


def open_files(path: Path) -> int:
    found = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(each.is_symlink() and os.path.realpath(each) == str(path) for each in found)


async def test_a_client_that_leaves_closes_the_file(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(64 * 1024 * 1024))
    application = Saying(start(), file(str(path)))
    running = await serve(application)
    client: Client = await running.connect()
    client.get()
    await client.head()
    await settled(lambda: open_files(path) == 1)
    client.reset()
    await settled(lambda: open_files(path) == 0 and bool(application.errors))
    assert [type(error) for error in application.errors] == [ClientDisconnected]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Opening a file waits until this is called."""
    may_open = threading.Event()
    real = file_body._open

    def late(path: str) -> Any:
        may_open.wait(10)
        return real(path)

    monkeypatch.setattr(file_body, "_open", late)
    return may_open.set


async def test_a_cancel_while_it_opens_closes_the_file(
    tmp_path: Path, held: Callable[[], None]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    pieces: AsyncIterator[Any] = file_body.file_pieces(str(path))
    reading = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    held()
    await settled(lambda: open_files(path) == 0)
