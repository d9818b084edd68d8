"""The fields of a request: RFC 9113 section 8, each rule by its breach."""

from __future__ import annotations

from typing import Any

import pytest

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.http2.request import check_trailers, read_request
from channels.wire.request import Request
from tests.wire.http2.frames import CONNECT, GET, POST

Pairs = list[tuple[bytes, bytes]]


def read(fields: Pairs, *, has_ended: bool = True, **limits: Any) -> Request:
    return read_request(fields, Limits(**limits), has_ended=has_ended)


def test_pseudo_fields_are_the_request_line_and_the_host() -> None:
    fields = [(b":path", b"/a%20b?c=d"), *GET[:2], GET[3], (b"accept", b"*/*")]
    request = read(fields)
    assert request.method == "GET"
    assert (request.raw_path, request.query) == (b"/a%20b", b"c=d")
    assert request.headers == [(b"host", b"localhost"), (b"accept", b"*/*")]
    assert request.http_version == "2"
    assert not request.has_body


def test_cookies_are_joined() -> None:
    request = read([*GET, (b"cookie", b"a=b"), (b"x", b"y"), (b"cookie", b"c=d")])
    assert request.headers[1:] == [(b"x", b"y"), (b"cookie", b"a=b; c=d")]


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([*GET, (b"host", b"LOCALHOST")], b"localhost"),
        ([*GET[:3], (b"host", b"other:80")], b"other:80"),
    ],
)
def test_a_request_has_one_host(fields: Pairs, host: bytes) -> None:
    assert [value for name, value in read(fields).headers if name == b"host"] == [host]


def test_a_body_is_told_by_the_open_stream() -> None:
    assert read(POST, has_ended=False).content_length is None
    assert read([*POST, (b"content-length", b"5")], has_ended=False).content_length == 5
    assert read([*POST, (b"content-length", b"0")]).content_length == 0


def test_an_extended_connect_asks_for_a_websocket() -> None:
    request = read(CONNECT, has_ended=False)
    assert request.upgrade == b"websocket"
    assert request.wants_websocket
    assert not read(GET).upgrade


def without(name: bytes, fields: Pairs = GET) -> Pairs:
    return [pair for pair in fields if pair[0] != name]


def with_value(name: bytes, value: bytes) -> Pairs:
    return [(name, value) if pair[0] == name else pair for pair in GET]


BAD: dict[str, tuple[Pairs, int]] = {
    "no method": (without(b":method"), 400),
    "no scheme": (without(b":scheme"), 400),
    "no path": (without(b":path"), 400),
    "no authority": (without(b":authority"), 400),
    "method no token": (with_value(b":method", b"GE T"), 400),
    "scheme malformed": (with_value(b":scheme", b"ht tp"), 400),
    "path empty": (with_value(b":path", b""), 400),
    "path without slash": (with_value(b":path", b"index"), 400),
    "path with a fragment": (with_value(b":path", b"/#a"), 400),
    "path with a space": (with_value(b":path", b"/a b"), 400),
    "star for GET": (with_value(b":path", b"*"), 400),
    "authority with user": (with_value(b":authority", b"a@b"), 400),
    "authority empty": (with_value(b":authority", b""), 400),
    "authority and host differ": ([*GET, (b"host", b"other")], 400),
    "two hosts": ([*GET[:3], (b"host", b"a"), (b"host", b"a")], 400),
    "unknown pseudo": ([*GET, (b":foo", b"bar")], 400),
    "response pseudo": ([*GET, (b":status", b"200")], 400),
    "pseudo twice": ([*GET, (b":path", b"/b")], 400),
    "pseudo late": ([*GET[:3], (b"a", b"b"), GET[3]], 400),
    "pseudo after a cookie": ([*GET[:3], (b"cookie", b"b"), GET[3]], 400),
    "upper case name": ([*GET, (b"X-A", b"b")], 400),
    "empty name": ([*GET, (b"", b"b")], 400),
    "name with a colon": ([*GET, (b"a:b", b"c")], 400),
    "value with a newline": ([*GET, (b"a", b"b\nc: d")], 400),
    "value with NUL": ([*GET, (b"a", b"b\0")], 400),
    "value begins with a space": ([*GET, (b"a", b" b")], 400),
    "value ends with a tab": ([*GET, (b"a", b"b\t")], 400),
    "connection": ([*GET, (b"connection", b"close")], 400),
    "transfer-encoding": ([*GET, (b"transfer-encoding", b"chunked")], 400),
    "upgrade": ([*GET, (b"upgrade", b"websocket")], 400),
    "keep-alive": ([*GET, (b"keep-alive", b"5")], 400),
    "proxy-connection": ([*GET, (b"proxy-connection", b"close")], 400),
    "te other": ([*GET, (b"te", b"gzip")], 400),
    "te twice": ([*GET, (b"te", b"trailers"), (b"te", b"trailers")], 400),
    "length and no body": ([*GET, (b"content-length", b"1")], 400),
    "lengths": ([*GET, (b"content-length", b"0"), (b"content-length", b"0")], 400),
    "length no number": ([*GET, (b"content-length", b"+0")], 400),
    "plain CONNECT": ([(b":method", b"CONNECT"), GET[3]], 501),
    "CONNECT with a path": ([(b":method", b"CONNECT"), *GET[1:]], 400),
    "protocol without CONNECT": ([*GET, (b":protocol", b"websocket")], 400),
    "another protocol": ([CONNECT[0], (b":protocol", b"connect-udp"), *GET[1:]], 501),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_rule_is_refused(case: str) -> None:
    fields, status = BAD[case]
    with pytest.raises(RemoteProtocolError) as caught:
        read(fields)
    assert caught.value.status == status


def test_the_good_request_is_not_refused() -> None:
    assert read([*GET, (b"te", b"trailers"), (b"a", b"b \t c")]).headers[-1] == (b"a", b"b \t c")
    options = [(b":method", b"OPTIONS"), (b":path", b"*"), GET[1], GET[3]]
    assert read(options).raw_path == b"*"


@pytest.mark.parametrize(
    ("limits", "fields", "status"),
    [
        ({"max_headers": 8}, [(b"a", b"b")] * 9, 431),
        ({"max_headers": 8}, [(b"cookie", b"b")] * 9, 431),
        ({"max_header_field_bytes": 256}, [(b"a", b"b" * 256)], 431),
        ({"max_header_bytes": 1024}, [(b"a", b"b" * 250)] * 5, 431),
        ({"max_body_bytes": 9}, [(b"content-length", b"10")], 413),
    ],
)
def test_a_size_over_its_bound_is_refused(
    limits: dict[str, int], fields: Pairs, status: int
) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read([*POST, *fields], has_ended=False, **limits)
    assert caught.value.status == status


def test_a_target_over_its_bound_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read(with_value(b":path", b"/" + b"a" * 256), max_request_line_bytes=256)
    assert caught.value.status == 414


@pytest.mark.parametrize("name", [b":path", b"content-length", b"host", b"connection", b"A"])
def test_trailers_decide_nothing(name: bytes) -> None:
    check_trailers([(b"x-checksum", b"1")], Limits())
    with pytest.raises(RemoteProtocolError):
        check_trailers([(b"x-checksum", b"1"), (name, b"1")], Limits())
