"""Every byte in every place of a request: every protocol refuses the same, and tells the same."""

from __future__ import annotations

import asyncio

import pytest

from channels.kit.limits import Limits
from channels.kit.types import Receive, Scope, Send
from tests.server.http2_client import Http2Client, dial_http2, request
from tests.server.shell import Shell, serve
from tests.wire.http2 import frames

#: Place -> the request's first line and a field, with the byte at %s.
PLACES = {
    "path": (b"/a%sb", b"X-a: b"),
    "query": (b"/?a%sb", b"X-a: b"),
    "header-name": (b"/", b"X-a%sb: c"),
    "header-value": (b"/", b"X-a: b%sc"),
    "subprotocol": (b"/", b"Sec-WebSocket-Protocol: b%sc"),
}
#: What a handshake has and a request has not.
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
OWN_FIELDS = {b"connection", b"upgrade", b"sec-websocket-version", b"sec-websocket-key"}
OWN_KEYS = {"type", "asgi", "scheme", "client", "extensions", "method", "subprotocols"}


class Refuser:
    """Keeps the scopes, and answers both kinds with a refusal."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await receive()
            await send({"type": "websocket.close"})


async def ask(shell: Shell, target: bytes, field: bytes, more: bytes) -> int:
    """The status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
    try:
        writer.write(b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n%s\r\n" % (target, field, more))
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()


def told(scope: Scope) -> Scope:
    """What a scope says of the request itself."""
    said = {name: value for name, value in scope.items() if name not in OWN_KEYS}
    said["headers"] = [pair for pair in scope["headers"] if pair[0] not in OWN_FIELDS]
    return said


@pytest.mark.parametrize("place", PLACES)
async def test_every_byte_is_told_alike(place: str) -> None:
    target, field = PLACES[place]
    application = Refuser()
    wrong = []
    async with serve(application) as shell:
        for value in range(256):
            byte = bytes([value])
            line = (
                target.replace(b"%s", byte),
                field.replace(b"%s", byte),
            )
            statuses = [await ask(shell, *line, more) for more in (b"", UPGRADE)]
            scopes = [told(scope) for scope in application.scopes]
            application.scopes.clear()
            alike = statuses[0] == statuses[1] and len(scopes) in {0, 2}
            # A subprotocol is a token: only a handshake asks for one.
            refused_by_handshake = place == "subprotocol" and statuses == [403, 400]
            if not (alike or refused_by_handshake) or (len(scopes) == 2 and scopes[0] != scopes[1]):
                wrong.append(f"{byte!r}: {statuses} {scopes}")
    assert wrong == []


async def ask_http2(client: Http2Client, stream: int, target: bytes, line: bytes) -> int:
    """The status of a request of HTTP/2, and of a WebSocket on the next stream; they are one."""
    name, value = line.split(b": ", 1)
    pair = (name.lower(), value)
    websocket = [(n, target if n == b":path" else v) for n, v in frames.CONNECT]
    client.send(
        frames.headers(stream, request(b"GET", target, pair)),
        frames.headers(stream + 2, [*websocket, pair], ends=False),
    )
    first = await client.response(stream)
    second = await client.response(stream + 2)
    assert {first.status, second.status} in ({first.status}, {403, 400})
    return max(first.status, second.status)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "subprotocol"])
async def test_http2_tells_what_http1_tells(place: str) -> None:
    target, field = PLACES[place]
    application = Refuser()
    wrong = []
    no_limit = Limits(http2_max_reset_rate=None)
    async with (
        serve(application, http2=True, limits=no_limit) as shell,
        dial_http2(shell.port) as client,
    ):
        for value in range(256):
            byte = bytes([value])
            line = (target.replace(b"%s", byte), field.replace(b"%s", byte))
            if line[1].count(b":") > 1 and place == "header-name":
                continue  # A colon ends the name in HTTP/1.1, and is refused in HTTP/2.
            old = await ask(shell, *line, b"")
            new = await ask_http2(client, 4 * value + 1, *line)
            scopes = [told(scope) for scope in application.scopes]
            application.scopes.clear()
            for scope in scopes:
                del scope["http_version"]
                scope["headers"] = [(n, b"a" if n == b"host" else v) for n, v in scope["headers"]]
            if old != new or any(scope != scopes[0] for scope in scopes):
                wrong.append(f"{byte!r}: {old} {new} {scopes}")
    assert wrong == []


async def test_the_comparison_can_fail() -> None:
    application = Refuser()
    async with serve(application) as shell:
        assert await ask(shell, b"/a", b"X: y", b"") == 403
        assert await ask(shell, b"/b", b"X: y", UPGRADE) == 403
    http, websocket = map(told, application.scopes)
    assert http != websocket
    assert {**http, "path": "/b", "raw_path": b"/b"} == websocket
