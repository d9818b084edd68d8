"""The WebSocket opening handshake, server side: RFC 6455 section 4.2.

The request was parsed by the HTTP machine; here it is judged, and the answer to a good one written.
No part of a refused request reaches an application.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from channels.exceptions import LocalProtocolError, RemoteProtocolError
from channels.kit.types import HeaderPairs, Headers
from channels.wire.fields import checked_fields, is_token
from channels.wire.request import MOST_ELEMENTS

#: RFC 6455 section 1.3: appended to the key before it is hashed.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: Fields that the server writes itself: an application that set them would break the handshake.
_RESERVED: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: Status of a refusal -> fields that its definition asks for.
REFUSAL_FIELDS: Final[dict[int, Headers]] = {
    # RFC 9110 section 15.5.6: "The origin server MUST generate an Allow header field".
    405: [(b"allow", b"GET")],
    # RFC 9110 section 15.5.22: "MUST send an Upgrade header field"; RFC 6455 section 4.4.
    # RFC 6585 section 4: "MAY include a Retry-After header"; rates are averages over 10 seconds.
    429: [(b"retry-after", b"10")],
    426: [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")],
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a client's valid handshake asks for."""

    #: Empty on a stream of HTTP/2, which has none.
    key: bytes
    #: In the client's order of preference.
    subprotocols: tuple[str, ...]
    #: The raw values of Sec-WebSocket-Extensions.
    extensions: tuple[str, ...]


def wants_websocket(headers: HeaderPairs) -> bool:
    """True if a request asks to become a WebSocket, however badly it does the rest."""
    headers = list(headers)
    return b"upgrade" in _options(headers, b"connection") and b"websocket" in _options(
        headers, b"upgrade"
    )


def read_handshake(
    *, method: str, http_version: str, headers: HeaderPairs, has_body: bool = False
) -> Handshake:
    """Judge a request that asks for a WebSocket; names in `headers` are in lower case.

    Raises:
        RemoteProtocolError: With the status to refuse it with.
    """
    headers = list(headers)
    if http_version == "2":
        return _read_stream_handshake(headers, has_body=has_body)
    if method != "GET":
        raise RemoteProtocolError(
            f"A WebSocket handshake is a GET request: found {method}.", status=405
        )
    if http_version != "1.1":
        raise RemoteProtocolError(
            f"A WebSocket handshake needs HTTP/1.1: found HTTP/{http_version}.", status=505
        )
    if has_body or _announces_body(headers):
        # A body would be read as frames by us and as a body by a proxy: request smuggling.
        raise RemoteProtocolError("A WebSocket handshake has no body.")
    _one(headers, b"host")
    if not wants_websocket(headers):
        raise RemoteProtocolError(
            "A WebSocket handshake has the fields 'Connection: Upgrade' and 'Upgrade: websocket'.",
            status=426,
        )
    key = _one(headers, b"sec-websocket-key")
    if not _is_key(key):
        raise RemoteProtocolError("Sec-WebSocket-Key is 16 bytes in base64.")
    _check_version(headers)
    return _offers(headers, key)


def _read_stream_handshake(headers: Headers, *, has_body: bool) -> Handshake:
    """Judge a request of HTTP/2: RFC 8441 section 5 leaves out key, Upgrade and Connection."""
    if not has_body:
        raise RemoteProtocolError("A WebSocket's stream ended with its handshake.")
    if _announces_body(headers):
        raise RemoteProtocolError("A WebSocket handshake has no body.")
    _one(headers, b"host")
    _check_version(headers)
    return _offers(headers, b"")


def _check_version(headers: Headers) -> None:
    if _one(headers, b"sec-websocket-version") != b"13":
        raise RemoteProtocolError("This server speaks version 13 of WebSocket.", status=426)


def _offers(headers: Headers, key: bytes) -> Handshake:
    return Handshake(
        key=key,
        subprotocols=_subprotocols(headers),
        extensions=tuple(
            value.decode("latin-1")
            for name, value in headers
            if name == b"sec-websocket-extensions"
        ),
    )


def accepted_fields(
    handshake: Handshake,
    *,
    subprotocol: str | None = None,
    extensions: str | None = None,
    headers: Sequence[Any] = (),
) -> Headers:
    """The fields of the answer that accepts, whichever version of HTTP carries it.

    Fields of `headers` that the server writes itself are left out.

    Raises:
        LocalProtocolError: If the client did not offer `subprotocol`, or `headers` holds a field
            that cannot be sent.
    """
    if subprotocol is not None and subprotocol not in handshake.subprotocols:
        offered = ", ".join(map(repr, handshake.subprotocols)) or "none"
        raise LocalProtocolError(
            f"The subprotocol {subprotocol!r} was not offered by the client; it offered {offered}."
        )
    extra = [pair for pair in checked_fields(headers) if pair[0] not in _RESERVED]
    fields = []
    if subprotocol is not None:
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if extensions is not None:
        fields.append((b"sec-websocket-extensions", extensions.encode("ascii")))
    return fields + extra


def switching_protocols(handshake: Handshake, fields: Headers) -> bytes:
    """The bytes of the 101 answer."""
    digest = hashlib.sha1(handshake.key + _GUID, usedforsecurity=False).digest()
    own = [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", base64.b64encode(digest)),
    ]
    lines = [b"HTTP/1.1 101 Switching Protocols"]
    lines += [name + b": " + value for name, value in own + fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _options(headers: Headers, wanted: bytes) -> set[bytes]:
    return {
        part.strip().lower()
        for name, value in headers
        if name == wanted
        for part in value.split(b",")
    }


def _one(headers: Headers, wanted: bytes) -> bytes:
    found = [value.strip() for name, value in headers if name == wanted]
    if len(found) != 1:
        raise RemoteProtocolError(
            f"A WebSocket handshake has exactly one {wanted.decode()} field: found {len(found)}."
        )
    return found[0]


def _announces_body(headers: Headers) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )


def _is_key(key: bytes) -> bool:
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _subprotocols(headers: Headers) -> tuple[str, ...]:
    values = [value for name, value in headers if name == b"sec-websocket-protocol"]
    if not values:
        return ()
    parts = b",".join(values).split(b",", MOST_ELEMENTS)
    if len(parts) > MOST_ELEMENTS:
        raise RemoteProtocolError(f"Over {MOST_ELEMENTS} subprotocols are offered.", status=431)
    for token in (found := [part.strip() for part in parts]):
        if not is_token(token):
            raise RemoteProtocolError(
                f"Sec-WebSocket-Protocol is a list of tokens: found {token[:80]!r}."
            )
    return tuple(token.decode("ascii") for token in found)
