"""The answer to a request or a handshake that is refused before the application is called."""

from __future__ import annotations

import logging
from typing import Final

from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Scope, Send
from channels.server.access_log import client_text

logger = logging.getLogger("django.channels.access")

#: One line for each status in so many seconds: a flood of bad clients is none of lines.
_throttle: Final = Throttle(5.0)


async def refuse(scope: Scope, send: Send, status: int, why: str, **fields: str) -> None:
    """Answer an HTTP request or a WebSocket's handshake with an error, and log it.

    A server without ASGI's extension "websocket.http.response" answers a handshake with 403.

    Args:
        why: In the answer and the log: what is wrong with the client, in a clause.
        fields: Further header fields; an underscore in a name stands for a hyphen.
    """
    held_back = _throttle.admit(str(status))
    if held_back is not None:
        client = client_text(scope.get("client"))
        logger.warning("Refused %s with %s: %s%s", client, status, why, and_more(held_back))
    kind = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close"})
            return
        kind = "websocket.http"
    body = f"Refused: {why}.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
