"""The head of an HTTP/2 request, judged: RFC 9113 section 8.

It becomes the same `Request` as one of HTTP/1.1, with the pseudo-header fields where the request
line and the Host field would be.  Every rule refuses; nothing is repaired but what the RFC has the
server join, which is the Cookie field.
"""

from __future__ import annotations

import re
from typing import Final

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.kit.types import HeaderPairs, Headers
from channels.wire.fields import is_token
from channels.wire.http2.head_decoder import CONTENT_LENGTH, HIDDEN_LENGTH
from channels.wire.request import Request, is_host, read_expectation, read_length

#: Section 8.2: "field names MUST be converted to lowercase".
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
#: Section 8.2.1: no control characters, and no space at either end.
_VALUE: Final = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
).fullmatch
_PATH: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*").fullmatch
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*").fullmatch

_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
#: Section 8.2.2: they are about a connection of HTTP/1.1.
_CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
#: Fields that decide about framing and routing.
_DECIDING: Final = frozenset({b"host", b"content-length", b"expect", b"te"}) | _CONNECTION_FIELDS

#: Names that were found good: clients send the same few again and again.
_NAMES: Final[set[bytes]] = set()
_MOST_NAMES: Final = 256
_LONGEST_NAME: Final = 64


def read_request(fields: HeaderPairs, limits: Limits, *, has_ended: bool) -> Request:
    """The request that a field section describes.

    Args:
        has_ended: True if no body and no trailers follow.

    Raises:
        RemoteProtocolError: With the status to answer.
    """
    pseudo, headers, deciding = _sort(fields, limits)
    host = deciding.get(b"host")
    authority = _authority(pseudo.get(b":authority"), host, limits)
    if authority is not None and host is not None:
        headers = [pair for pair in headers if pair[0] != b"host"]
    if authority is not None:
        # ASGI, "HTTP Connection Scope": its value "should be added to the start".
        headers.insert(0, (b"host", authority))
    method, path, protocol = _target(pseudo, limits)
    lengths = deciding.get(b"content-length")
    length = None if lengths is None else read_length(lengths)
    if has_ended:
        if length:
            raise RemoteProtocolError(f"Content-Length: {length}, and no body follows.")
        length = 0
    most = limits.max_body_bytes
    if length is not None and most is not None and length > most:
        raise RemoteProtocolError(f"The body is over {most} bytes.", status=413)
    path, _, query = path.partition(b"?")
    return Request(
        method=method,
        raw_path=path,
        query=query,
        headers=headers,
        http_version="2",
        keep_alive=True,
        content_length=length,
        expects_continue=not has_ended and read_expectation(deciding.get(b"expect")),
        upgrade=protocol,
    )


def check_trailers(fields: HeaderPairs, limits: Limits) -> None:
    """Check a request's trailers, which nobody is told.

    Raises:
        RemoteProtocolError: If one is malformed, or about framing or routing.
    """
    pseudo, _, deciding = _sort(fields, limits)
    if pseudo or deciding:
        raise RemoteProtocolError(
            f"Forbidden in trailers: {b', '.join([*pseudo, *deciding])[:80]!r}."
        )


def _sort(
    fields: HeaderPairs, limits: Limits
) -> tuple[dict[bytes, bytes], Headers, dict[bytes, list[bytes]]]:
    """Pseudo-header fields, the others, and of these the ones that decide."""
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    deciding: dict[bytes, list[bytes]] = {}
    cookies: list[bytes] = []
    size, longest = 0, limits.max_header_field_bytes
    for name, value in fields:
        if name == HIDDEN_LENGTH:
            name = CONTENT_LENGTH  # noqa: PLW2901 - its own name again
        field_bytes = len(name) + len(value)
        size += field_bytes
        if field_bytes > longest:
            raise RemoteProtocolError(f"A header field of over {longest} bytes.", status=431)
        if name not in _NAMES and name[:1] != b":":
            _check_name(name)
        if _VALUE(value) is None:
            raise RemoteProtocolError(f"Malformed value of the field {name[:80]!r}.")
        if name[:1] == b":":
            _take_pseudo(pseudo, name, value, is_late=bool(headers or cookies))
        elif name == b"cookie":
            cookies.append(value)
        else:
            headers.append((name, value))
            if name in _DECIDING:
                deciding.setdefault(name, []).append(value)
    if len(headers) + len(cookies) > limits.max_headers:
        count = len(headers) + len(cookies)
        raise RemoteProtocolError(
            f"{count} header fields: the most is {limits.max_headers}.", status=431
        )
    if size > limits.max_header_bytes:
        raise RemoteProtocolError(
            f"The header block is over {limits.max_header_bytes} bytes.", status=431
        )
    if cookies:
        # Section 8.2.3: they "MUST be concatenated into a single octet string".
        headers.append((b"cookie", b"; ".join(cookies)))
    if not deciding.keys().isdisjoint(_CONNECTION_FIELDS):
        raise RemoteProtocolError("A field about a connection of HTTP/1.1.")
    if deciding.get(b"te", [b"trailers"]) != [b"trailers"]:
        raise RemoteProtocolError("The field TE: expected 'trailers' alone.")
    return pseudo, headers, deciding


def _check_name(name: bytes) -> None:
    if _NAME(name) is None:
        raise RemoteProtocolError(f"Malformed name of a field: {name[:80]!r}.")
    if len(_NAMES) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
        _NAMES.add(name)


def _take_pseudo(pseudo: dict[bytes, bytes], name: bytes, value: bytes, *, is_late: bool) -> None:
    # Section 8.3: before all others, each once, and no other ones.
    if is_late or name in pseudo or name not in _PSEUDO:
        raise RemoteProtocolError(f"The pseudo-header field {name[:80]!r} has no place there.")
    pseudo[name] = value


def _authority(authority: bytes | None, hosts: list[bytes] | None, limits: Limits) -> bytes | None:
    """The value of the Host field; None to leave it as it is."""
    if hosts is not None and len(hosts) > 1:
        raise RemoteProtocolError(f"Found {len(hosts)} Host fields: expected one.")
    found = authority if authority is not None else hosts[0] if hosts else None
    if found is None:
        if limits.requires_host:
            raise RemoteProtocolError("A request needs the field :authority, or Host.")
        return None
    if authority is not None and hosts is not None and hosts[0].lower() != authority.lower():
        raise RemoteProtocolError("The fields :authority and Host differ.")
    if not found or not is_host(found):
        raise RemoteProtocolError(f"Malformed authority: {found[:80]!r}.")
    return authority


def _target(pseudo: dict[bytes, bytes], limits: Limits) -> tuple[str, bytes, bytes]:
    """Method, path and protocol; the last is empty but for an extended CONNECT (RFC 8441)."""
    method, protocol = pseudo.get(b":method"), pseudo.get(b":protocol")
    if method is None or not is_token(method):
        raise RemoteProtocolError("A request has one field :method, with a token.")
    if method == b"CONNECT" and protocol is None:
        # After a 2xx the stream would be a tunnel for the peer.
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            raise RemoteProtocolError("A CONNECT request has the field :authority alone.")
        raise RemoteProtocolError("The method CONNECT is not implemented.", status=501)
    if protocol is not None and (method != b"CONNECT" or b":authority" not in pseudo):
        raise RemoteProtocolError("The field :protocol belongs to CONNECT, with an :authority.")
    path, scheme = pseudo.get(b":path"), pseudo.get(b":scheme")
    if path is None or scheme is None or _SCHEME(scheme) is None:
        raise RemoteProtocolError("A request has the fields :scheme and :path.")
    most = limits.max_request_line_bytes
    if len(path) > most:
        raise RemoteProtocolError(f"The target is over {most} bytes.", status=414)
    if _PATH(path) is None and not (path == b"*" and method == b"OPTIONS"):
        raise RemoteProtocolError(f"Malformed request target: {path[:80]!r}.")
    if protocol is not None and protocol != b"websocket":
        raise RemoteProtocolError(
            f"The protocol {protocol[:80].decode('latin-1')} is not spoken here.", status=501
        )
    return method.decode(), path, protocol or b""
