from __future__ import annotations

import pytest

from channels.wire.request import Request, split_list
from tests.wire.reading import read


def request(*lines: str, version: str = "1.1", target: str = "/") -> Request:
    head = "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/{version}", *lines, ""))
    (event,) = read([head.encode()])
    assert isinstance(event, Request)
    return event


def test_fields_keep_their_order_and_lose_their_case() -> None:
    got = request("Host: x", "B: 1", "a: 2 ", "b:\t3", "Cookie: a=b", "Empty:")
    assert got.headers == [
        (b"host", b"x"),
        (b"b", b"1"),
        (b"a", b"2"),
        (b"b", b"3"),
        (b"cookie", b"a=b"),
        (b"empty", b""),
    ]


@pytest.mark.parametrize("byte", [0x09, 0x20, *range(0x80, 0x100)])
def test_a_value_may_have_any_byte_that_cannot_end_it(byte: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: b" + bytes([byte]) + b"c\r\n\r\n"
    (event,) = read([head])
    assert isinstance(event, Request)
    assert event.headers[1] == (b"a", b"b" + bytes([byte]) + b"c")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", b"/", b""),
        ("/a%20b?c=d", b"/a%20b", b"c=d"),
        ("/a?b?c", b"/a", b"b?c"),
        ("/?", b"/", b""),
        ("//a", b"//a", b""),
        ("http://x/a?b", b"/a", b"b"),
        ("https://x?b", b"/", b"b"),
    ],
)
def test_target(target: str, path: bytes, query: bytes) -> None:
    got = request("Host: x", target=target)
    assert (got.raw_path, got.query) == (path, query)


def test_the_host_of_an_absolute_target_is_the_one_that_counts() -> None:
    got = request("A: b", "Host: x", target="http://y:81/")
    assert got.headers == [(b"host", b"y:81"), (b"a", b"b")]


@pytest.mark.parametrize("host", ["x", "x:80", "127.0.0.1:8000", "[::1]", "[::1]:80", "a_b.c", ""])
def test_good_hosts(host: str) -> None:
    assert request(f"Host: {host}").headers == [(b"host", host.encode())]


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive, Close", False),
        ("1.1", "upgrade", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
def test_keep_alive(version: str, connection: str | None, *, expected: bool) -> None:
    lines = ["Host: x"] + ([f"Connection: {connection}"] if connection else [])
    assert request(*lines, version=version).keep_alive is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], False),
        (["Upgrade: websocket"], True),
        (["Upgrade: WebSocket", "Connection: Upgrade"], True),
        (["Upgrade: h2c, websocket"], True),
        (["Upgrade: h2c", "Upgrade: websocket"], True),
        (["Upgrade: websocket2"], False),
        (["Connection: Upgrade"], False),
    ],
)
def test_wants_websocket(lines: list[str], *, expected: bool) -> None:
    assert request("Host: x", *lines).wants_websocket is expected


def test_an_expectation_without_a_body_is_none() -> None:
    assert not request("Host: x", "Expect: 100-continue").expects_continue


def test_an_expectation_of_http_1_0_is_ignored() -> None:
    got = request("Expect: anything", "Content-Length: 5", version="1.0")
    assert not got.expects_continue


def test_split_list() -> None:
    assert split_list([b"A, b ,,\tc", b"d"]) == [b"a", b"b", b"c", b"d"]
    assert split_list([]) == []
