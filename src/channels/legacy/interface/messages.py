"""What workers are told, and what they may reply: the message formats of ASGI 1.

    channel                  sent when
    http.request             a request's head and the beginning of its body have come
    its body_channel         the rest of a large body, in pieces; `closed` if the client went
    http.disconnect          the client went before the whole response was sent
    websocket.connect        a WebSocket asks to be opened
    websocket.receive        a message of a client
    websocket.disconnect     a WebSocket that was announced is over

Replies come to the connection's reply channel: parts of a response, or for a WebSocket any of
`accept`, `bytes`, `text` and `close`, taken in this order.  Unknown keys are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from channels.exceptions import LocalProtocolError
from channels.fanout.prepared import PreparedMessage
from channels.kit.types import HeaderPairs, Message, Scope

_NORMAL: Final = 1000


def request_message(scope: Scope, reply_channel: str, body: bytes) -> Message:
    """The `http.request` of a request."""
    return {
        **_connection(scope, reply_channel),
        "http_version": scope["http_version"],
        "method": scope["method"],
        "body": body,
    }


def connect_message(scope: Scope, reply_channel: str) -> Message:
    """The `websocket.connect` of a WebSocket."""
    return {**_connection(scope, reply_channel), "order": 0}


def _connection(scope: Scope, reply_channel: str) -> Message:
    message = {
        "reply_channel": reply_channel,
        "path": scope["path"],
        "root_path": scope.get("root_path", ""),
        "query_string": scope.get("query_string", b""),
        "scheme": scope["scheme"],
        "headers": [list(pair) for pair in scope["headers"]],
    }
    for end in ("client", "server"):
        if scope.get(end) is not None:
            message[end] = list(scope[end])
    return message


@dataclass(frozen=True, slots=True)
class ResponsePart:
    """One reply to a request; the first one has a status."""

    status: int | None
    headers: HeaderPairs
    content: bytes
    more: bool


def response_part(message: Message, *, is_first: bool) -> ResponsePart:
    """A reply to a request.

    Raises:
        LocalProtocolError: If it is none; says what was found and what was expected.
    """
    status, content = message.get("status"), message.get("content", b"")
    if is_first and (isinstance(status, bool) or not isinstance(status, int)):
        raise LocalProtocolError(
            f"the first part of a response has a 'status', an int: found {status!r:.100}"
        )
    if not isinstance(content, bytes):
        raise LocalProtocolError(f"'content' is bytes: found {type(content).__name__}")
    headers = _headers(message.get("headers") or ()) if is_first else []
    more = bool(message.get("more_content", False))
    return ResponsePart(status if is_first else None, headers, content, more)


def _headers(found: Any) -> HeaderPairs:
    pairs = [*found.items()] if isinstance(found, dict) else found
    try:
        return [(_octets(name), _octets(value)) for name, value in pairs]
    except (TypeError, ValueError):
        raise LocalProtocolError(
            f"'headers' is a list of pairs of bytes: found {found!r:.100}"
        ) from None


def _octets(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode("latin-1")
    raise TypeError(part)


@dataclass(frozen=True, slots=True)
class SocketReply:
    """One reply to a WebSocket: what it asks for, in this order."""

    accept: bool | None
    data: tuple[bytes | str, ...]
    #: The close code; None: it stays open.
    close: int | None


def socket_reply(message: Message) -> SocketReply:
    """A reply to a WebSocket.

    Raises:
        LocalProtocolError: If it asks for nothing, or a value has a wrong type.
    """
    accept, close = message.get("accept"), message.get("close")
    octets, text = message.get("bytes"), message.get("text")
    for name, value, kind in (
        ("accept", accept, bool),
        ("bytes", octets, bytes),
        ("text", text, str),
        ("close", close, int),
    ):
        if value is not None and not isinstance(value, kind):
            raise LocalProtocolError(
                f"{name!r} is {kind.__name__}: found {type(value).__name__} {value!r:.100}"
            )
    if accept is None and close is None and octets is None and text is None:
        raise LocalProtocolError(
            f"a reply has one of 'accept', 'bytes', 'text' and 'close': found {sorted(message)!r}"
        )
    data = tuple(part for part in (octets, text) if part is not None)
    return SocketReply(accept, data, _code(close))


def _code(close: Any) -> int | None:
    if close is None or close is False:
        return None
    return _NORMAL if close is True else int(close)


def ready_reply(message: Message) -> PreparedMessage | None:
    """The frames of a reply to an open WebSocket that is text or bytes and nothing else; or None.

    None leaves the reply to `socket_reply`.
    """
    octets, text = message.get("bytes"), message.get("text")
    if message.get("close") or message.get("accept", True) is not True:
        return None
    if isinstance(text, str) and octets is None:
        return PreparedMessage(text=text)
    if isinstance(octets, bytes) and text is None:
        return PreparedMessage(data=octets)
    return None
