"""A response as fields and data."""

from __future__ import annotations

import pytest

from channels.exceptions import LocalProtocolError
from channels.wire.http2.response import StreamResponse
from channels.wire.response import ResponseBody, ResponseStart


def response(method: str = "GET") -> StreamResponse:
    return StreamResponse(method, lambda: [(b"server", b"us", b"server: us\r\n")])


def test_a_whole_body_gets_its_length() -> None:
    writer = response()
    writer.start(ResponseStart(200, [(b"X-A", b"b")]))
    assert writer.body(ResponseBody(b"hello")) == (
        [(b":status", b"200"), (b"x-a", b"b"), (b"server", b"us"), (b"content-length", b"5")],
        b"hello",
    )
    assert writer.is_complete
    assert writer.size == 5


def test_a_body_in_pieces_has_no_length() -> None:
    writer = response()
    writer.start(ResponseStart(299, []))
    head, data = writer.body(ResponseBody(b"a", more=True))
    assert (head, data) == ([(b":status", b"299"), (b"server", b"us")], b"a")
    assert writer.body(ResponseBody(b"b")) == (None, b"b")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_no_body_where_none_may_be(method: str, status: int) -> None:
    writer = response(method)
    writer.start(ResponseStart(status, [(b"etag", b"x")]))
    head, data = writer.body(ResponseBody(b"never"))
    assert data == b""
    assert head is not None
    assert b"content-length" not in dict(head)


def test_fields_of_a_connection_are_left_out() -> None:
    writer = response()
    fields = [b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection"]
    writer.start(ResponseStart(200, [(name, b"x") for name in fields]))
    head, _ = writer.body(ResponseBody(b""))
    assert head == [(b":status", b"200"), (b"server", b"us"), (b"content-length", b"0")]


def test_a_body_is_as_long_as_its_length() -> None:
    writer = response()
    writer.start(ResponseStart(200, [(b"content-length", b"3")]))
    assert writer.body(ResponseBody(b"abcde", more=True))[1] == b"abc"
    assert writer.surplus == 2
    short = response()
    short.start(ResponseStart(200, [(b"content-length", b"3")]))
    with pytest.raises(LocalProtocolError, match="1 bytes shorter"):
        short.body(ResponseBody(b"ab"))
    with pytest.raises(LocalProtocolError, match="before its start"):
        response().body(ResponseBody(b""))
