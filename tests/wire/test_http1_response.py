from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import LocalProtocolError
from channels.wire.http1_response import ResponseWriter
from channels.wire.response import ResponseBody, ResponseStart

Pairs = list[tuple[bytes, bytes]]


def writer(method: str = "GET", version: str = "1.1", *, keep_alive: bool = True) -> ResponseWriter:
    return ResponseWriter(
        method, version, keep_alive, lambda: [(b"server", b"us", b"server: us\r\n")]
    )


def written(
    response: ResponseWriter, status: int, headers: Pairs, *pieces: tuple[bytes, bool]
) -> tuple[list[bytes], bytes]:
    """The head's lines and what follows them."""
    response.start(ResponseStart(status, headers))
    data = b"".join(response.body(ResponseBody(piece, more)) for piece, more in pieces)
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def test_a_whole_body_gets_its_length() -> None:
    lines, body = written(writer(), 200, [(b"A", b"b")], (b"hello", False))
    assert lines == [b"HTTP/1.1 200 OK", b"a: b", b"server: us", b"content-length: 5"]
    assert body == b"hello"


def test_a_body_in_pieces_is_chunked() -> None:
    lines, body = written(
        writer(), 200, [], (b"hello", True), (b"", True), (b"x", True), (b"", False)
    )
    assert b"transfer-encoding: chunked" in lines
    assert body == b"5\r\nhello\r\n1\r\nx\r\n0\r\n\r\n"


def test_http_1_0_is_told_the_end_by_closing() -> None:
    response = writer(version="1.0")
    lines, body = written(response, 200, [], (b"hello", True), (b"x", False))
    assert lines == [b"HTTP/1.0 200 OK", b"server: us", b"connection: close"]
    assert body == b"hellox"
    assert not response.keep_alive


def test_http_1_0_that_keeps_alive_is_told() -> None:
    lines, _ = written(writer(version="1.0"), 299, [], (b"hello", False))
    assert lines[0] == b"HTTP/1.0 299 "
    assert b"connection: keep-alive" in lines


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 205), ("GET", 304)]
)
@pytest.mark.parametrize("pieces", [[(b"hello", False)], [(b"he", True), (b"llo", False)]])
def test_responses_without_a_body(method: str, status: int, pieces: Any) -> None:
    response = writer(method)
    lines, body = written(response, status, [(b"content-length", b"5")], *pieces)
    assert body == b""
    lengths = [line for line in lines if line.startswith(b"content-length")]
    assert lengths == {204: [], 205: [b"content-length: 0"]}.get(status, [b"content-length: 5"])
    assert not any(line.startswith(b"transfer-encoding") for line in lines)
    assert response.is_complete
    assert response.keep_alive


def test_the_application_s_own_server_field_stands() -> None:
    lines, _ = written(writer(), 200, [(b"Server", b"mine")], (b"", False))
    assert b"server: mine" in lines
    assert b"server: us" not in lines


def test_hop_by_hop_fields_are_the_server_s_business() -> None:
    response = writer()
    headers = [(b"Transfer-Encoding", b"gzip"), (b"Connection", b"close"), (b"keep-alive", b"9")]
    lines, _ = written(response, 200, headers, (b"", False))
    assert lines == [b"HTTP/1.1 200 OK", b"server: us", b"content-length: 0", b"connection: close"]
    assert not response.keep_alive


def test_an_unknown_status_has_no_phrase() -> None:
    lines, _ = written(writer(), 599, [], (b"", False))
    assert lines[0] == b"HTTP/1.1 599 "


@pytest.mark.parametrize("byte", [b for b in range(256) if b < 32 and b != 9] + [127])
def test_a_control_character_never_reaches_the_wire(byte: int) -> None:
    text = b"a" + bytes([byte]) + b"b"
    for headers in ([(b"x", text)], [(text, b"x")]):
        response = writer()
        with pytest.raises(LocalProtocolError):
            response.start(ResponseStart(200, headers))
        response.start(ResponseStart(200, []))


@pytest.mark.parametrize("name", [b"", b"a b", b"a:b", b"\xe9", b'"'])
def test_bad_names(name: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        writer().start(ResponseStart(200, [(name, b"x")]))


@pytest.mark.parametrize("pair", [("a", b"b"), (b"a", "b"), (b"a", 1), (b"a", None)])
def test_fields_that_are_not_bytes_are_named(pair: Any) -> None:
    with pytest.raises(LocalProtocolError, match="byte strings"):
        writer().start(ResponseStart(200, [pair]))


@pytest.mark.parametrize("status", [0, 100, 199, 1000, "200", None])
def test_bad_statuses(status: Any) -> None:
    with pytest.raises(LocalProtocolError):
        writer().start(ResponseStart(status, []))


@pytest.mark.parametrize("lengths", [[b"+5"], [b""], [b"5", b"5"], [b"1" * 19]])
def test_bad_lengths(lengths: list[bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        writer().start(ResponseStart(200, [(b"content-length", length) for length in lengths]))


def test_a_body_too_short_is_found_before_anything_is_written() -> None:
    response = writer()
    response.start(ResponseStart(200, [(b"content-length", b"5")]))
    with pytest.raises(LocalProtocolError, match="1 bytes"):
        response.body(ResponseBody(b"hell"))
    assert not response.has_begun
    response.forget()
    lines, _ = written(response, 500, [], (b"", False))
    assert lines[0] == b"HTTP/1.1 500 Internal Server Error"


def test_bytes_beyond_the_length_are_left_out_and_counted() -> None:
    response = writer()
    pieces = [(b"hell", True), (b"o world", True), (b"!", False)]
    lines, rest = written(response, 200, [(b"content-length", b"5")], *pieces)
    assert b"content-length: 5" in lines
    assert rest == b"hello"
    assert (response.size, response.surplus) == (5, 7)
    assert response.is_complete


def test_order() -> None:
    response = writer()
    with pytest.raises(LocalProtocolError, match="before its start"):
        response.body(ResponseBody(b""))
    response.start(ResponseStart(200, []))
    with pytest.raises(LocalProtocolError, match="started before"):
        response.start(ResponseStart(200, []))
    response.body(ResponseBody(b""))
    with pytest.raises(LocalProtocolError, match="complete"):
        response.body(ResponseBody(b""))
