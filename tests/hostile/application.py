"""The application under attack: it writes down what it sees, by the client's port.

What it does is chosen by the path.  Anything not named below is answered in the ordinary way: an
HTTP request with its own method, path and body size, a WebSocket with an echo.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Note = Callable[[str], None]
Handler = Callable[[Scope, Receive, Send, Note], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE = b"x" * 65536


class Failure(Exception):
    """What the application raises when it is asked to."""


class ProbeApplication:
    """An ASGI application with a memory."""

    def __init__(self, on_startup: Callable[[], Awaitable[None]]) -> None:
        self.on_startup = on_startup
        self.seen: dict[int, list[str]] = defaultdict(list)
        self.release = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        # No address is left of a client that reset the connection before it was accepted.
        note = self.seen[scope["client"][1] if scope["client"] else 0].append
        table = HTTP if scope["type"] == "http" else WEBSOCKET
        ordinary = answer if scope["type"] == "http" else echo
        handler = table.get(scope["path"].strip("/"), ordinary)
        try:
            await handler(scope, receive, send, note)
        except asyncio.CancelledError:
            note("cancelled")
            raise

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self.on_startup()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return


async def read_body(receive: Receive) -> int | None:
    """The size of the request's body, or None if the client went before its end."""
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        size += len(event.get("body", b""))
        if not event.get("more_body", False):
            return size


def target(scope: Scope) -> str:
    """Path and query as they stood in the request."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return (path.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")


async def answer(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    size = await read_body(receive)
    said = f"{scope['method']} {target(scope)} {'gone' if size is None else size}"
    note(said)
    if size is not None:
        body = said.encode("latin-1")
        await send(START | {"headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


async def show_headers(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await read_body(receive)
    lines = [name + b"=" + value for name, value in scope["headers"]]
    await send(START)
    await send({"type": "http.response.body", "body": b"\n".join(lines)})


async def slow(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    await answer(scope, receive, send, note)


async def hang(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note("hangs")
    await asyncio.Event().wait()


async def wait_for_disconnect(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await read_body(receive)
    note("waits")
    event = await receive()
    note(event["type"])


async def in_flight(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """Answer a second later: what a stop of the server must wait for."""
    note("begun")
    await asyncio.sleep(1)
    await answer(scope, receive, send, note)


async def never_read(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note("begun")
    await asyncio.sleep(0.5)
    await send(START | {"headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def download(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """64 MiB, or until the server refuses."""
    await send(START)
    try:
        for _ in range(1024):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    except OSError:
        note("send failed")
    finally:
        note("ended")


def misuse(*messages: Message, then: type[Exception] | None = None) -> Handler:
    """A handler that sends these, whatever the ASGI specification says, then raises or returns."""

    async def handler(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        if scope["type"] == "websocket":
            await receive()
        for message in messages:
            await send(message)
        if then is not None:
            raise then("as asked")

    return handler


def start(*headers: tuple[Any, Any], status: Any = 200) -> Message:
    return START | {"headers": list(headers), "status": status}


def body(data: Any = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


HTTP: dict[str, Handler] = {
    "headers": show_headers,
    "slow": slow,
    "hang": hang,
    "wait": wait_for_disconnect,
    "in-flight": in_flight,
    "never-read": never_read,
    "download": download,
    "early": misuse(start((b"content-length", b"2")), body(b"ok")),
    "205": misuse(start(status=205), body()),
    "205-with-body": misuse(start(status=205), body(b"not allowed")),
    "205-with-length": misuse(start((b"content-length", b"5"), status=205), body(b"hello")),
    "204-with-body": misuse(start(status=204), body(b"not allowed")),
    "inject-value": misuse(start((b"x", b"a\r\nx-injected: 1\r\n\r\nHTTP/1.1 200 OK")), body()),
    "inject-lf": misuse(start((b"x", b"a\nx-injected: 1")), body()),
    "inject-nul": misuse(start((b"x", b"a\0b")), body()),
    "inject-name": misuse(start((b"x: 1\r\nx-injected", b"1")), body()),
    "empty-name": misuse(start((b"", b"1")), body()),
    "text-header": misuse(start(("x-text", "value")), body()),
    "no-response": misuse(),
    "raise": misuse(then=Failure),
    "raise-after-start": misuse(start((b"content-length", b"10")), then=Failure),
    "raise-in-body": misuse(start(), body(b"part", more=True), then=Failure),
    "return-in-body": misuse(start(), body(b"part", more=True)),
    "too-long": misuse(start((b"content-length", b"5")), body(b"0123456789")),
    "too-short": misuse(start((b"content-length", b"10")), body(b"01234")),
    "body-first": misuse(body(b"early")),
    "start-twice": misuse(start(), start(), body()),
    "unknown-type": misuse({"type": "http.surprise"}),
    "bad-status": misuse(start(status="OK"), body()),
    "bad-length": misuse(start((b"content-length", b"+2")), body(b"ok")),
    "two-lengths": misuse(start((b"content-length", b"2"), (b"content-length", b"3")), body(b"ok")),
    "own-framing": misuse(
        start((b"transfer-encoding", b"gzip, chunked"), (b"content-length", b"2")), body(b"ok")
    ),
    "text-body": misuse(start(), body("text")),
}


async def echo(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            note("connect")
            await send({"type": "websocket.accept"})
        elif event["type"] == "websocket.disconnect":
            note(f"disconnect {event.get('code')}")
            return
        else:
            key = "text" if event.get("text") is not None else "bytes"
            note(f"{key} {len(event[key])}")
            await send({"type": "websocket.send", key: event[key]})


async def close_4000(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    event = await receive()
    note(f"disconnect {event.get('code')}")


async def never_accept(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note("connect")
    await receive()
    event = await receive()
    note(f"disconnect {event.get('code')}")


async def deaf(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """Accept, then take nothing until the client has gone or patience ends."""
    await receive()
    await send({"type": "websocket.accept"})
    note("deaf")
    await asyncio.Event().wait()


def flood(mebibytes: int) -> Handler:
    """A handler that sends so much, or until the server refuses."""

    async def handler(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            for _ in range(16 * mebibytes):
                await send({"type": "websocket.send", "bytes": PIECE})
            note("sent all")
        except OSError:
            note("send failed")
        event = await receive()
        while event["type"] != "websocket.disconnect":
            event = await receive()
        note(f"disconnect {event.get('code')}")

    return handler


ACCEPT: Message = {"type": "websocket.accept"}

WEBSOCKET: dict[str, Handler] = {
    "refuse": misuse({"type": "websocket.close"}),
    "close-4000": close_4000,
    "never-accept": never_accept,
    "deaf": deaf,
    "flood": flood(64),
    "flood-512": flood(512),
    "raise-first": misuse(then=Failure),
    "return-first": misuse(),
    "raise": misuse(ACCEPT, then=Failure),
    "return": misuse(ACCEPT),
    "subprotocol-crlf": misuse(ACCEPT | {"subprotocol": "a\r\nx-injected: 1"}),
    "subprotocol-8bit": misuse(ACCEPT | {"subprotocol": "caf\xe9"}),
    "subprotocol-del": misuse(ACCEPT | {"subprotocol": "a\x7f"}),
    "accept-header": misuse(ACCEPT | {"headers": [(b"x", b"a\r\nx-injected: 1")]}),
    "send-first": misuse({"type": "websocket.send", "text": "early"}),
    "accept-twice": misuse(ACCEPT, ACCEPT),
    "unknown-type": misuse(ACCEPT, {"type": "websocket.surprise"}),
    "empty-send": misuse(ACCEPT, {"type": "websocket.send"}),
    "bad-code": misuse(ACCEPT, {"type": "websocket.close", "code": 1005}),
    "text-is-bytes": misuse(ACCEPT, {"type": "websocket.send", "text": b"bytes"}),
    "send-after-close": misuse(
        ACCEPT,
        {"type": "websocket.close", "code": 4001},
        {"type": "websocket.send", "text": "late"},
    ),
}
