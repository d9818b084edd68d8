"""What an edge tells a worker of a connection, and a client if there is no worker.

Connections in a worker share what is the same for most of them, in place of having each its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from channels.exceptions import MalformedMessage
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
#: What is the same for many: headers, most of which are their browsers', and these.
_SHARED_KEYS: Final = frozenset(
    {"type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "server"}
)
#: So many different headers, and values that are not longer.
MOST_SHARED: Final = 1024
MOST_SHARED_OCTETS: Final = 200
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


def opened_scope(opened: Message, state: dict[str, Any] | None) -> Scope:
    """The scope as the edge's server has made it; messages know no tuples.

    Args:
        state: Of the application's lifespan.

    Raises:
        MalformedMessage: If it is none of a connection.
    """
    scope: Scope = opened["scope"]
    if scope.get("type") not in {"http", "websocket"}:
        raise MalformedMessage("'open' with a scope that is of no connection.")
    scope["headers"] = [_shared_header(name, value) for name, value in scope["headers"]]
    for key in _SHARED_KEYS & scope.keys():
        scope[key] = _with_shared_parts(scope[key])
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _with_shared_parts(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_shared_parts(part) for part in value]
    if isinstance(value, dict):
        return {key: _with_shared_parts(part) for key, part in value.items()}
    is_short = isinstance(value, str | bytes) and len(value) <= MOST_SHARED_OCTETS
    return _shared(value) if is_short else value


@lru_cache(MOST_SHARED)
def _shared(value: str | bytes) -> str | bytes:
    return value


@lru_cache(MOST_SHARED)
def _shared_header(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name, value


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
