"""The head of an HTTP/1.1 request: request line, fields, framing.

Every rule refuses; nothing is repaired, because two servers that repair differently are what
request smuggling is made of.  httptools (llhttp, strict) reads the fields; around it stand the
rules that it does not have: the shape of the request line, one valid Host, and one way to tell
where the body ends.

RFC 9112 section 3 (request line), 5 (fields), 6 (body); RFC 9110 section 7.2 (Host).
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.kit.types import Headers
from channels.wire.request import Request, is_host, read_expectation, read_length, split_list

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
#: Visible ASCII but "#": a fragment never reaches a server (RFC 9112 section 3.2).
_REQUEST_LINE: Final = re.compile(
    rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) (HTTP/([0-9]\.[0-9]))"
)
_VERSION_SO_FAR: Final = rb"(?: (?:H(?:T(?:T(?:P(?:/(?:[0-9](?:\.(?:[0-9]\r?)?)?)?)?)?)?)?)?)?"
#: A request line of which the end is still to come.  A target that is whole has one of the forms of
#: RFC 9112 section 3.2: a path, "*", a URL, and with CONNECT an authority.
_REQUEST_LINE_SO_FAR: Final = re.compile(
    rb"CONNECT [\x21\x22\x24-\x7e]++" + _VERSION_SO_FAR + rb"|" + _TOKEN + rb"+"
    rb"(?: (?:[\x21\x22\x24-\x7e]*+"
    rb"|(?:[/*]|[A-Za-z][A-Za-z0-9+.-]*+://)[\x21\x22\x24-\x7e]*+" + _VERSION_SO_FAR + rb"))?"
)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?]+)([^?]*)(.*)")
_VERSIONS: Final = {b"1.1": "1.1", b"1.0": "1.0"}
#: Fields that decide about framing, routing and the connection.
_DECIDING: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}
)


def check_request_line(line: bytes | bytearray) -> re.Match[bytes]:
    """Match a request line, without its CRLF.

    Raises:
        RemoteProtocolError: 505 for another version of HTTP, 400 for anything else.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError(f"Malformed request line: {bytes(line[:80])!r}.")
    if match[4] not in _VERSIONS:
        raise RemoteProtocolError(
            f"{match[3].decode()} is not spoken here: expected HTTP/1.1 or HTTP/1.0.", status=505
        )
    return match


def check_request_line_so_far(line: bytes | bytearray) -> None:
    """Refuse a beginning that no request line has, so that nobody waits for its end.

    Raises:
        RemoteProtocolError: With the status to answer.
    """
    if _REQUEST_LINE_SO_FAR.fullmatch(line) is None:
        raise RemoteProtocolError(f"Malformed request line: {bytes(line[:80])!r}.")


def check_fields(head: bytes, limits: Limits) -> None:
    """Check number and size of the fields of a whole head, or of trailers.

    Raises:
        RemoteProtocolError: With 431.
    """
    most = limits.max_headers
    if (count := head.count(b"\r\n") - 2) > most:
        raise RemoteProtocolError(f"{count} header fields: the most is {most}.", status=431)
    longest = limits.max_header_field_bytes
    if len(head) > longest and max(map(len, head.split(b"\r\n")[1:])) > longest:
        raise RemoteProtocolError(f"A header field of over {longest} bytes.", status=431)


class _Fields:
    """What httptools calls for each field."""

    __slots__ = ("deciding", "headers")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.deciding: dict[bytes, list[bytes]] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.strip(b" \t")
        self.headers.append((name, value))
        if name in _DECIDING:
            known = self.deciding.get(name)
            if known is None:
                self.deciding[name] = [value]
            else:
                known.append(value)


def read_head(head: bytes, line: re.Match[bytes], limits: Limits) -> Request:
    """Read a whole head, from the request line to the empty line that ends it.

    Args:
        line: What `check_request_line` made of its first line.

    Raises:
        RemoteProtocolError: With the status to answer; the connection must be closed after it.
    """
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # It leaves the rest of the connection to another protocol: not its decision here.
    except httptools.HttpParserInvalidMethodError:
        raise _unknown_method(line[1]) from None
    except httptools.HttpParserError as error:
        raise RemoteProtocolError(f"Malformed request head: {error}.") from None
    method, version = line[1], line[4]
    deciding = fields.deciding
    _check_host(deciding.get(b"host"), is_needed=limits.requires_host and version == b"1.1")
    path, query = _split_target(method, line[2], fields)
    length = _body_length(deciding, version)
    asked = deciding.get(b"upgrade")
    upgrade = b"" if asked is None else b", ".join(asked).lower()
    request = Request(
        method=method.decode(),
        raw_path=path,
        query=query,
        headers=fields.headers,
        http_version=_VERSIONS[version],
        keep_alive=_keeps_alive(deciding.get(b"connection"), version),
        content_length=length,
        expects_continue=_expects_continue(deciding.get(b"expect"), version) and length != 0,
        upgrade=upgrade,
    )
    # Asked in this order, so that a list that is no good is refused here and not by who asks next.
    if upgrade and request.wants_websocket and length != 0:
        # The bytes of the body would be read as frames here and as a request elsewhere.
        raise RemoteProtocolError("A WebSocket handshake has no body.")
    return request


def _unknown_method(method: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(f"The method {method.decode()} is not implemented.", status=501)


def _check_host(hosts: list[bytes] | None, *, is_needed: bool) -> None:
    # RFC 9112 section 3.2: "A server MUST respond with a 400 status code to any HTTP/1.1 request
    # message that lacks a Host header field and to any request message that contains more than one
    # Host header field line or a Host header field with an invalid field value."
    if hosts is None:
        if is_needed:
            raise RemoteProtocolError("An HTTP/1.1 request needs a Host field.")
    elif len(hosts) > 1:
        raise RemoteProtocolError(f"Found {len(hosts)} Host fields: expected one.")
    elif not is_host(hosts[0]):
        raise RemoteProtocolError(f"Malformed Host field: {hosts[0][:80]!r}.")


def _split_target(method: bytes, target: bytes, fields: _Fields) -> tuple[bytes, bytes]:
    if method == b"CONNECT":
        # Whatever its target: after a 2xx the connection would be a tunnel for the peer.
        raise _unknown_method(method)
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query
    if target == b"*" and method == b"OPTIONS":
        return target, b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not is_host(absolute[1]):
        raise RemoteProtocolError(f"Malformed request target: {target[:80]!r}.")
    # RFC 9112 section 3.2.2: with an absolute-form target an origin server "MUST ignore the
    # received Host header field (if any) and instead use the host information of the request-
    # target."
    fields.headers[:] = [pair for pair in fields.headers if pair[0] != b"host"]
    fields.headers.insert(0, (b"host", absolute[1]))
    return absolute[2] or b"/", absolute[3][1:]


def _body_length(deciding: dict[bytes, list[bytes]], version: bytes) -> int | None:
    """Bytes of the body; None for chunks."""
    lengths = deciding.get(b"content-length")
    codings = deciding.get(b"transfer-encoding")
    if codings is not None:
        _check_codings(codings, lengths, version)
        return None
    if lengths is None:
        return 0
    return read_length(lengths)


def _check_codings(codings: list[bytes], lengths: list[bytes] | None, version: bytes) -> None:
    if lengths is not None:
        raise RemoteProtocolError("Content-Length beside Transfer-Encoding.")
    if version == b"1.0":
        # RFC 9112 section 6.1: such a message MUST be treated "as if the framing is faulty".
        raise RemoteProtocolError("Transfer-Encoding in an HTTP/1.0 request.")
    names = split_list(codings)
    if names == [b"chunked"]:
        return
    if names[-1:] != [b"chunked"] or b"chunked" in names[:-1]:
        raise RemoteProtocolError(f"Transfer-Encoding: {b', '.join(names)[:80]!r} has no end.")
    raise RemoteProtocolError(
        f"Transfer-Encoding: {b', '.join(names)[:80]!r}: expected chunked alone.", status=501
    )


def _keeps_alive(connection: list[bytes] | None, version: bytes) -> bool:
    if connection is None:
        return version == b"1.1"
    options = split_list(connection)
    return b"close" not in options and (version == b"1.1" or b"keep-alive" in options)


def _expects_continue(expect: list[bytes] | None, version: bytes) -> bool:
    # RFC 9110 section 10.1.1: an HTTP/1.0 request's expectation MUST be ignored.
    return version != b"1.0" and read_expectation(expect)
