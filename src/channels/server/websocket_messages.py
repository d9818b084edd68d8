"""What an application says on a WebSocket, checked: ASGI specification, "WebSocket", send events.

Stages of a WebSocket as its application sees it, and what it may say in each:

    CONNECTING   websocket.accept, websocket.close (refuse), websocket.http.response.start (refuse)
    DENYING      websocket.http.response.body
    OPEN         websocket.send, websocket.close
    CLOSED       nothing; a second websocket.close is ignored
"""

from __future__ import annotations

import enum
from typing import Final

from channels.exceptions import ClientDisconnected, LocalProtocolError
from channels.kit.types import Message


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


def check_kind(stage: Stage, message: Message) -> str:
    """The type of a message that may be sent in this stage.

    Raises:
        LocalProtocolError: If it may not.
        ClientDisconnected: If only the connection's end stands in its way.
    """
    kind = message.get("type")
    if kind in MAY_SAY[stage]:
        assert isinstance(kind, str), "the table holds strings"
        return kind
    if kind not in _KNOWN:
        raise LocalProtocolError(
            f"Unknown message type {kind!r}: a WebSocket takes {', '.join(sorted(_KNOWN))}."
        )
    if stage is Stage.CLOSED:
        raise ClientDisconnected(f"The WebSocket is closed: {kind!r} was not sent.")
    expected = " or ".join(map(repr, MAY_SAY[stage]))
    raise LocalProtocolError(f"{kind!r} cannot be sent while {stage.value}: expected {expected}.")


def data_of(message: Message) -> str | bytes:
    """The payload of a `websocket.send`.

    Raises:
        LocalProtocolError: If it has not exactly one of text and bytes, or one of a wrong type.
            An empty one beside the other counts as absent.
    """
    text, data = message.get("text"), message.get("bytes")
    if text is not None and data is not None and not (text and data):
        text, data = (text, None) if text or not data else (None, data)
    if text is not None and data is None:
        if isinstance(text, str):
            return text
        raise LocalProtocolError(f"'text' is a str: found {type(text).__name__}.")
    if data is not None and text is None:
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        raise LocalProtocolError(f"'bytes' is a bytes: found {type(data).__name__}.")
    found = "neither" if text is None else "both"
    raise LocalProtocolError(f"'websocket.send' has either 'text' or 'bytes': found {found}.")


def close_of(message: Message) -> tuple[int, str]:
    """Code and reason of a `websocket.close`; without them 1000 and empty."""
    code, reason = message.get("code"), message.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise LocalProtocolError(f"A close reason is a str: found {reason!r}.")
    return 1000 if code is None else code, reason or ""
