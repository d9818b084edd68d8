"""Whatever a client sends, what the server logs of it are single lines of printable text.

CVE-2020-7694: an escape sequence in a path moved the terminal's cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from channels.kit.types import Application, Receive, Scope, Send
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.server import Server, ServerOptions, parse_endpoint
from channels.server.access_log import AccessLog
from channels.server.options import ProxyOptions
from tests.server.client import connect

PLACES = {
    "path": b"GET /a%bc HTTP/1.1\r\nHost: x\r\n\r\n",
    "query": b"GET /a?b%bc HTTP/1.1\r\nHost: x\r\n\r\n",
    "header name": b"GET / HTTP/1.1\r\nHost: x\r\nA%bb: c\r\n\r\n",
    "header value": b"GET / HTTP/1.1\r\nHost: x\r\nA: b%bc\r\n\r\n",
    "host": b"GET / HTTP/1.1\r\nHost: x%by\r\n\r\n",
    "method": b"G%bT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "version": b"GET / HTTP/1.%b\r\nHost: x\r\n\r\n",
    "forwarded": b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4%b\r\n\r\n",
    "forwarded port": b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n"
    b"X-Forwarded-Port: 1%b\r\n\r\n",
    "subprotocol": b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: a%b\r\n\r\n",
    "websocket path": b"GET /ws%bc?d HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
}


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, as a plain handler would write it, but for tracebacks."""
    written: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    access = logging.getLogger("test.access.lines")
    access.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError


# With an empty router each path is logged as one without a route.
ROUTER = ProtocolTypeRouter({"http": URLRouter([]), "websocket": URLRouter([])})


@pytest.mark.parametrize(
    ("place", "application"),
    [*[(place, failing) for place in PLACES], ("path", ROUTER), ("websocket path", ROUTER)],
)
async def test_every_octet_everywhere_leaves_single_printable_lines(
    lines: list[str], place: str, application: Application
) -> None:
    server = Server(
        application,
        [parse_endpoint("tcp:port=0:interface=127.0.0.1")],
        ServerOptions(lifespan="off", proxy=ProxyOptions(trusted_proxies=("*",))),
        AccessLog(logging.getLogger("test.access.lines")),
    )
    await server.start()
    try:
        for number in range(256):
            octet = bytes([number])
            for shown in (octet, b"%%%02x" % number) if "path" in place else (octet,):
                client = await connect(server.addresses[0])
                client.send(PLACES[place].replace(b"%b", shown))
                client.half_close()
                async with asyncio.timeout(10):
                    await client.rest()
                await client.close()
    finally:
        await server.stop()
    assert len(lines) >= 256
    for line in lines:
        assert line.isprintable(), repr(line)
    for line in lines:
        if " - - [" in line:
            # A request that was refused has its reason in a second pair.
            assert line.count('"') - line.count('\\"') in {2, 4}, line
