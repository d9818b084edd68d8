from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest

from channels.kit.types import Receive, Scope, Send
from channels.server import ProxyOptions, RequestIdFilter, current_request_id
from channels.server.access_log import AccessLog
from channels.server.json_log import JsonFormatter
from tests.server.applications import respond
from tests.server.conftest import Serve, settled

MADE = re.compile(r"[0-9a-f]{32}")
TRUSTED = ProxyOptions(trusted_proxies=("127.0.0.1",))
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def naming(scope: Scope, receive: Receive, send: Send) -> None:
    """Says the id of the scope, of its own context, and of a thread that it starts."""
    if scope["type"] == "websocket":
        await receive()
        raise LookupError("as it was told")
    if scope["path"] == "/fail":
        raise LookupError("as it was told")
    there = await asyncio.to_thread(current_request_id)
    found = [scope.get("request_id"), current_request_id(), there]
    await respond(send, json.dumps(found).encode())


async def ids(serve: Serve, *fields: bytes, **options: Any) -> list[Any]:
    running = await serve(naming, **options)
    client = await running.connect()
    client.send(b"\r\n".join([b"GET / HTTP/1.1", b"Host: x", *fields, b"", b""]))
    found: list[Any] = json.loads((await client.answer()).body)
    await settled(lambda: bool(running.records))
    return [*found, running.records[0].request_id]


async def test_none_unless_it_is_asked_for(serve: Serve) -> None:
    found = await ids(serve, b"X-Request-ID: abc", proxy=TRUSTED)
    assert found == [None, "", "", ""]


async def test_one_is_made_and_is_the_same_everywhere(serve: Serve) -> None:
    one = await ids(serve, request_ids=True)
    two = await ids(serve, request_ids=True)
    assert len(set(one)) == len(set(two)) == 1
    assert one[0] != two[0]
    assert MADE.fullmatch(one[0])


async def test_a_trusted_proxys_is_taken_over(serve: Serve) -> None:
    field = b"X-Request-ID: 7f.a-1:b_2"
    found = await ids(serve, field, request_ids=True, proxy=TRUSTED)
    assert set(found) == {"7f.a-1:b_2"}
    # A stranger's is not.
    assert MADE.fullmatch((await ids(serve, field, request_ids=True))[0])


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-Request-ID: a b",),
        (b"X-Request-ID: " + b"a" * 129,),
        (b'X-Request-ID: a"b',),
        (b"X-Request-ID: one", b"X-Request-ID: two"),
        (b"X-Request-ID: ",),
    ],
)
async def test_what_cannot_be_one_is_replaced(serve: Serve, fields: tuple[bytes, ...]) -> None:
    found = await ids(serve, *fields, request_ids=True, proxy=TRUSTED)
    assert MADE.fullmatch(found[0])


async def test_the_log_of_an_error_has_it_and_the_access_log_too(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.setFormatter(JsonFormatter())
    running = await serve(naming, request_ids=True)
    client, socket = await running.connect(), await running.connect()
    client.get("/fail")
    socket.send(HANDSHAKE)
    assert (await client.answer()).status == (await socket.answer()).status == 500
    await settled(lambda: len(running.records) == 3)
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    errors = [line for line in lines if line["level"] == "ERROR"]
    assert {line["request_id"] for line in errors} == {it.request_id for it in running.records}
    for line in errors:
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("LookupError: as it was told")
    logger = logging.getLogger("tests.access")
    logger.setLevel(logging.INFO)
    AccessLog(logger, is_json=True)(running.records[0])
    assert json.loads(caplog.text.splitlines()[-1])["logger"] == "tests.access"
    assert running.records[0].request_id in caplog.text.splitlines()[-1]


def test_the_attribute_for_formats_of_a_site() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    assert RequestIdFilter().filter(record)
    assert logging.Formatter("%(request_id)s").format(record) == "-"
    # Nothing to name.
    assert "request_id" not in json.loads(JsonFormatter().format(record))
