"""The scope of a connection in a worker: as the edge's server made it, and small."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from channels.decoupled.carried import carried_scope, opened_scope
from channels.exceptions import MalformedMessage

SCOPE: dict[str, Any] = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/rooms/lobby/",
    "raw_path": b"/rooms/lobby/",
    "query_string": b"token=1",
    "root_path": "",
    "headers": [(b"host", b"example.com"), (b"user-agent", b"a browser")],
    "client": ["192.0.2.1", 4711],
    "server": ["192.0.2.9", 80],
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}, "of the edge": object()},
}


def opened() -> Any:
    """The scope in a worker, when it has come over the link."""
    carried, _ = carried_scope(SCOPE)
    message = msgpack.unpackb(msgpack.packb({"scope": carried}))
    return opened_scope(message, None)


def test_a_scope_arrives_as_it_was() -> None:
    assert opened() == {**SCOPE, "extensions": {"websocket.http.response": {}}}


def test_connections_share_what_cannot_change_and_nothing_else() -> None:
    first, second = opened(), opened()
    assert first["path"] is second["path"]
    assert first["headers"][1] is second["headers"][1]
    assert first["asgi"]["spec_version"] is second["asgi"]["spec_version"]
    for name in ("asgi", "headers", "client", "server", "extensions"):
        assert first[name] is not second[name]


def test_what_is_of_no_connection_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="of no connection"):
        opened_scope({"scope": {"type": "lifespan"}}, None)
