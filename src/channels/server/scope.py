"""The scope: what an application is told of a connection, HTTP and WebSocket in one place.

ASGI HTTP and WebSocket specification, "Connection Scope".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from channels.kit.types import Address, Headers, Scope
from channels.server.options import ServerOptions
from channels.server.peer import Peer
from channels.server.proxy import Proxies
from channels.server.request_ids import REQUEST_ID, new_request_id
from channels.wire.percent import unquote
from channels.wire.request import Request

#: 2.4: `send` raises an OSError once the client has gone.
HTTP_SPEC_VERSION: Final = "2.4"
#: The same, and since 2.3 `websocket.close` and `websocket.disconnect` carry a reason.
WEBSOCKET_SPEC_VERSION: Final = "2.4"

#: Daphne's field for where the application is mounted: never shown to the application, which might
#: believe a client's.
_ROOT_PATH_HEADER: Final = b"daphne-root-path"

_SPEC_VERSIONS: Final = {"http": HTTP_SPEC_VERSION, "websocket": WEBSOCKET_SPEC_VERSION}
_SCHEMES: Final = {
    ("http", False): "http",
    ("http", True): "https",
    ("websocket", False): "ws",
    ("websocket", True): "wss",
}


class ScopeBuilder:
    """Builds the scopes of one server.

    Args:
        state: What the application kept at startup; each scope gets its own copy, one level deep.
            None if the application does not take part in lifespan: then scopes have no state.
    """

    def __init__(self, options: ServerOptions, state: Mapping[str, Any] | None = None) -> None:
        self._proxies = Proxies(options.proxy)
        self._trusts_anyone = bool(self._proxies)
        self._root_path = options.root_path
        self._has_ids = options.request_ids
        self._id_header = options.proxy.request_id_header.lower().encode()
        self.state = state

    def trusts(self, peer: Peer) -> bool:
        """True if this peer is a trusted proxy."""
        return self._trusts_anyone and self._proxies.trusts(peer)

    def build(self, kind: Literal["http", "websocket"], request: Request, peer: Peer) -> Scope:
        """The scope of a request; `extensions` is a fresh dict to be filled.

        Addresses are lists, as other servers give them: programs compare them with lists.
        """
        headers, root_path, id_header = request.headers, self._root_path, b""
        if self.trusts(peer):
            id_header = self._id_header
            peer = self._proxies.resolve(peer, headers)
            root_path = self._proxies.root_path(headers) or root_path
        scope: Scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": _SPEC_VERSIONS[kind]},
            "http_version": request.http_version,
            "method": request.method,
            "scheme": _SCHEMES[kind, peer.is_secure],
            "path": unquote(request.raw_path),
            "raw_path": request.raw_path,
            "query_string": request.query,
            "root_path": root_path,
            "headers": _visible(headers),
            "client": None if peer.client is None else list(peer.client),
            "server": None if peer.server is None else list(peer.server),
            "extensions": {},
        }
        if self._has_ids:
            scope[REQUEST_ID] = new_request_id(headers, id_header)
        if self.state is not None:
            scope["state"] = dict(self.state)
        if kind == "websocket":
            del scope["method"]
            # Those of a handshake that is in order: its session fills them in.
            scope["subprotocols"] = []
        return scope


def client_of(scope: Scope) -> Address | None:
    """The client's address; ask before the application has the scope, which it may change."""
    client = scope["client"]
    return None if client is None else (client[0], client[1])


def _visible(headers: Headers) -> Headers:
    # In CGI's names "_" and "-" are one: X_Real_User would pass for X-Real-User, which a proxy in
    # front sets or removes.
    return [pair for pair in headers if b"_" not in pair[0] and pair[0] != _ROOT_PATH_HEADER]
