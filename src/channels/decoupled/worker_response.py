"""What an application in a worker says to HTTP, checked as a server would."""

from __future__ import annotations

from typing import Final

from channels.exceptions import LocalProtocolError
from channels.kit.limits import KIB
from channels.kit.types import Message

#: A larger body is sent in such pieces.
PIECE_BYTES: Final = 256 * KIB


def response_events(message: Message) -> list[Message]:
    """The same in one or more events, none of which is too large to be sent.

    Raises:
        LocalProtocolError: If the message is none of a response.
    """
    kind = message.get("type")
    if kind == "http.response.start":
        return [{**message, "headers": [list(pair) for pair in message.get("headers") or ()]}]
    if kind != "http.response.body":
        raise LocalProtocolError(
            f"Message type {kind!r}: expected http.response.start or http.response.body."
        )
    body = message.get("body", b"")
    if not isinstance(body, bytes | bytearray | memoryview):
        raise LocalProtocolError(f"A body of {type(body).__name__}: expected bytes.")
    body = bytes(body)
    pieces = [body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES)] or [b""]
    events: list[Message] = [{"type": kind, "body": each, "more_body": True} for each in pieces]
    events[-1]["more_body"] = bool(message.get("more_body"))
    return events
