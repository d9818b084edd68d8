"""What an application says on a WebSocket, checked: ASGI specification, "WebSocket", send events.

Stages of a WebSocket as its application sees it, and what it may say in each:

    CONNECTING   websocket.accept, websocket.close (refuse), websocket.http.response.start (refuse)
    DENYING      websocket.http.response.body
    OPEN         websocket.send, websocket.close
    CLOSED       nothing; a second websocket.close is ignored

Messages of other types, and a websocket.send with neither text nor bytes, are ignored with a
warning: programs send them, and other servers take them.
"""

from __future__ import annotations

import enum
from typing import Final

from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.kit.printable import printable
from channels.kit.throttle import Throttle, and_more
from channels.kit.types import Message
from channels.server.application import logger


class Stage(enum.Enum):
    """How far a WebSocket is, as its application sees it."""

    CONNECTING = "connecting"
    DENYING = "denying"
    OPEN = "open"
    CLOSED = "closed"


ACCEPT: Final = "websocket.accept"
SEND: Final = "websocket.send"
CLOSE: Final = "websocket.close"
DENIAL_START: Final = "websocket.http.response.start"
DENIAL_BODY: Final = "websocket.http.response.body"

MAY_SAY: Final = {
    Stage.CONNECTING: (ACCEPT, CLOSE, DENIAL_START),
    Stage.DENYING: (DENIAL_BODY,),
    Stage.OPEN: (SEND, CLOSE),
    Stage.CLOSED: (CLOSE,),
}
_KNOWN: Final = {kind for kinds in MAY_SAY.values() for kind in kinds}

_ignored: Final = Throttle(5.0)


def check_kind(stage: Stage, message: Message) -> str | None:
    """The type of a message that may be sent in this stage; None: ignore it.

    Raises:
        LocalProtocolError: If it may not, or it has no type.
        ClientDisconnected: If only the connection's end stands in its way.
    """
    kind = message.get("type")
    if kind in MAY_SAY[stage]:
        assert isinstance(kind, str), "the table holds strings"
        return kind
    if not isinstance(kind, str):
        raise LocalProtocolError(f"A message's 'type' is a str: found {message!r:.200}.")
    if kind not in _KNOWN:
        _log_ignored(f"of the unknown type {kind!r}: a WebSocket takes {', '.join(sorted(_KNOWN))}")
        return None
    if stage is Stage.CLOSED:
        raise ClientDisconnected(f"The WebSocket is closed: {kind!r} was not sent.")
    expected = " or ".join(map(repr, MAY_SAY[stage]))
    raise LocalProtocolError(f"{kind!r} cannot be sent while {stage.value}: expected {expected}.")


def data_of(message: Message) -> str | bytes | None:
    """The payload of a `websocket.send`; None if it has none: ignore it.

    Raises:
        LocalProtocolError: If it has both text and bytes, or one of a wrong type.  An empty one
            beside the other counts as absent.
    """
    text, data = message.get("text"), message.get("bytes")
    if text is not None and data is not None and not (text and data):
        text, data = (text, None) if text or not data else (None, data)
    if text is not None and data is None:
        if isinstance(text, str):
            return text
        if hasattr(text, "encode"):
            # Behaves as a str without being one, as Django's lazy translations do.
            return str(text)
        raise LocalProtocolError(f"'text' is a str: found {type(text).__name__}.")
    if data is not None and text is None:
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        raise LocalProtocolError(f"'bytes' is a bytes: found {type(data).__name__}.")
    if text is None:
        _log_ignored(f"'websocket.send' with neither 'text' nor 'bytes': found {sorted(message)}")
        return None
    raise LocalProtocolError("'websocket.send' has either 'text' or 'bytes': found both.")


def close_of(message: Message) -> tuple[int, str]:
    """Code and reason of a `websocket.close`; without them 1000 and empty."""
    code, reason = message.get("code"), message.get("reason")
    return 1000 if code is None else code, str(reason or "")


def _log_ignored(what: str) -> None:
    held_back = _ignored.admit("message")
    if held_back is not None:
        logger.warning("Ignored a message %s.%s", printable(what), and_more(held_back))
