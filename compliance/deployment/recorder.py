"""The application behind the proxies: it writes down all that it is told, one JSON line a request.

Its answer names the client that it was told of, so that a client notices an answer meant for
another one.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

#: The project's folder, where `channels serve` runs.
FOLDER = "."


def describe(scope: dict[str, Any], body: int | None) -> dict[str, Any]:
    """The scope as JSON: octets as Latin-1."""
    query = scope["query_string"].decode("latin-1")
    return {
        "type": scope["type"],
        "method": scope.get("method", "GET"),
        "target": scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        "path": scope["path"],
        "root_path": scope["root_path"],
        "scheme": scope["scheme"],
        "client": scope["client"],
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
        "body": body,
        "at": time.time(),
    }


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        record(describe(scope, None))
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["type"] == "http":
        told = describe(scope, await read_body(receive))
        record(told)
        port = told["client"][1] if told["client"] else 0
        body = f"told:{port}:{told['method']} {told['target'][:200]} {told['body']};".encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{event['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})


async def read_body(receive: Any) -> int | None:
    """The body's size; None if the client went before its end."""
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        size += len(event.get("body", b""))
        if not event.get("more_body", False):
            return size


def record(told: dict[str, Any]) -> None:
    # One write: the lines of one process never mix, and each process has a file of its own.
    with open(f"{FOLDER}/{os.getpid()}.told", "a") as file:
        file.write(json.dumps(told) + "\n")
