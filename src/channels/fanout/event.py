"""One message on its way to many members: decoded once, framed once."""

from __future__ import annotations

from typing import Final

from channels.fanout.prepared import PreparedMessage
from channels.kit.types import Message

#: The outbound event that needs no consumer, and all the keys that it may have.
OUTBOUND: Final = "websocket.send"
_OUTBOUND_KEYS: Final = frozenset({"type", "text", "bytes"})


class Event:
    """A decoded message, shared by all who get it.

    Attributes:
        size: Bytes that it counts for in a mailbox.
        deadline: Seconds by the monotonic clock after which it is void; None: never.
        prepared: Its frames, if it is an outbound event with either text or bytes.
    """

    __slots__ = ("deadline", "message", "prepared", "size")

    def __init__(self, message: Message, size: int = 0, deadline: float | None = None) -> None:
        self.message = message
        self.size = size
        self.deadline = deadline
        self.prepared = _prepare(message) if message.get("type") == OUTBOUND else None


def _prepare(message: Message) -> PreparedMessage | None:
    """None leaves the message to the consumer, which knows what is wrong with it."""
    text, data = message.get("text"), message.get("bytes")
    if not message.keys() <= _OUTBOUND_KEYS:
        return None
    if isinstance(text, str) and data is None:
        return PreparedMessage(text=text)
    if isinstance(data, bytes) and text is None:
        return PreparedMessage(data=data)
    return None
