"""What an edge tells a worker of a connection, and a client if there is no worker."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from channels.kit.types import Message, Scope
from channels.server.request_ids import REQUEST_ID

#: What the worker's application sees of a scope; the rest is this process's own.
SCOPE_KEYS: Final = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "subprotocols",
    REQUEST_ID,
)
#: The extension by which a handshake is refused with a response.
DENIAL: Final = "websocket.http.response"


def carried_scope(scope: Scope) -> tuple[Scope, int]:
    """The scope for the worker's application, and what its fields count for in bytes."""
    carried: Scope = {key: scope[key] for key in SCOPE_KEYS if key in scope}
    # Another server may leave it out; the worker names connections by it.
    carried.setdefault("raw_path", quote(scope["path"]).encode())
    extensions = scope.get("extensions") or {}
    carried["extensions"] = {DENIAL: {}} if DENIAL in extensions else {}
    return carried, sum(len(name) + len(value) for name, value in scope["headers"])


def refusal(scope: Scope, retry_after: int) -> list[Message]:
    """503, which tells a client to come again after so many seconds; 403 where a server cannot."""
    kind = "http.response"
    if scope["type"] == "websocket":
        if DENIAL not in (scope.get("extensions") or {}):
            return [{"type": "websocket.close"}]
        kind = DENIAL
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"%d" % retry_after)]
    return [
        {"type": f"{kind}.start", "status": 503, "headers": headers},
        {"type": f"{kind}.body", "body": b"No worker is free."},
    ]
