from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import LocalProtocolError
from channels.kit.limits import Limits
from channels.wire.http1 import BodyChunk, Continue, Event, Failure, Http1Connection, HttpPhase
from channels.wire.request import Request
from channels.wire.response import ResponseBody, ResponseStart
from tests.wire.reading import WAYS, bytewise, in_two, outline, read

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def get(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"hello") -> bytes:
    return POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


#: Name -> (bytes, what a strict server makes of them).
MESSAGES: dict[str, tuple[bytes, list[object]]] = {
    "length differs from length": (post(b"Content-Length: 5", b"Content-Length: 6"), [400]),
    "the same length twice": (post(b"Content-Length: 5", b"Content-Length: 5"), [400]),
    "a list of lengths": (post(b"Content-Length: 5, 5"), [400]),
    "length and chunks": (
        post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "chunks and length": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
        [400],
    ),
    "identity and length": (post(b"Transfer-Encoding: identity", b"Content-Length: 5"), [400]),
    "xchunked and length": (post(b"Transfer-Encoding: xchunked", b"Content-Length: 5"), [400]),
    "xchunked alone": (post(b"Transfer-Encoding: xchunked"), [400]),
    "chunked not last": (post(b"Transfer-Encoding: chunked, identity"), [400]),
    "gzip and chunked": (post(b"Transfer-Encoding: gzip, chunked"), [501]),
    "gzip and chunked in two fields": (
        post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
        [501],
    ),
    "chunked twice": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), [400]),
    "chunked twice in a list": (post(b"Transfer-Encoding: chunked, chunked"), [400]),
    "space before the colon": (post(b"Transfer-Encoding : chunked"), [400]),
    "vertical tab before chunked": (post(b"Transfer-Encoding: \x0bchunked"), [400]),
    "empty transfer coding": (post(b"Transfer-Encoding:"), [400]),
    "chunks in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        [400],
    ),
    "length +5": (post(b"Content-Length: +5"), [400]),
    "length -5": (post(b"Content-Length: -5"), [400]),
    "length 1_0": (post(b"Content-Length: 1_0"), [400]),
    "length 0x5": (post(b"Content-Length: 0x5"), [400]),
    "length 2^70": (post(b"Content-Length: 1180591620717411303424"), [400]),
    "length empty": (post(b"Content-Length:"), [400]),
    "length in Arabic digits": (post("Content-Length: \u0665".encode()), [400]),
    "lines that end in LF": (b"GET / HTTP/1.1\nHost: x\n\n", [400]),
    "one line that ends in LF": (get(b"A: b\nC: d"), [400]),
    "the last line ends in LF": (b"GET / HTTP/1.1\r\nHost: x\r\n\n", [400]),
    "carriage return in a value": (get(b"A: b\rc"), [400]),
    "NUL in a value": (get(b"A: b\x00c"), [400]),
    "vertical tab in a value": (get(b"A: b\x0bc"), [400]),
    "delete in a value": (get(b"A: b\x7fc"), [400]),
    "folded line": (get(b"A: b", b" c"), [400]),
    "space in a name": (get(b"A b: c"), [400]),
    "name in Latin-1": (get(b"\xe9: c"), [400]),
    "no colon": (get(b"Abc"), [400]),
    "no name": (get(b": c"), [400]),
    "space before the first name": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", [400]),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", [400]),
    "two Hosts": (get(b"Host: x"), [400]),
    "space in Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", [400]),
    "path in Host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", [400]),
    "user in Host": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", [400]),
    "list in Host": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", [400]),
    "letters for a port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", [400]),
    "HTTP/0.9": (b"GET /\r\n", [400]),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", [505]),
    "HTTP/2.0 as text": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", [505]),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    "http/1.1": (b"GET / http/1.1\r\nHost: x\r\n\r\n", [400]),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: x\r\n\r\n", [400]),
    "no version": (b"GET / HTTP/\r\nHost: x\r\n\r\n", [400]),
    "bracket in the method": (b"GE(T / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "method in lower case": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", [501]),
    "two spaces after the method": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "two spaces before the version": (b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "space after the version": (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", [400]),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "space before the method": (b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "raw UTF-8 in the path": ("GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(), [400]),
    "NUL in the path": (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "fragment": (b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "path without a slash": (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "star with GET": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "one empty line first": (b"\r\n" + GET, ["GET /"]),
    "three empty lines first": (b"\r\n\r\n\r\n" + GET, [400]),
    "LF first": (b"\n" + GET, [400]),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    "binary": (bytes(range(256)), [400]),
    "chunk size 0x5": (chunks(b"0x5\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size +5": (chunks(b"+5\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size -1": (chunks(b"-1\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size 1_0": (chunks(b"1_0\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size empty": (chunks(b"\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size with a space": (chunks(b"5 \r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk size 2^68": (chunks(b"100000000000000000\r\nhello\r\n"), ["POST /", 400]),
    "chunk size ends in LF": (chunks(b"5\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk longer than its size": (chunks(b"5\r\nhello0\r\n\r\n"), ["POST /", b"hello", 400]),
    "chunk shorter than its size": (
        chunks(b"6\r\nhello\r\n0\r\n\r\n"),
        ["POST /", b"hello\r", 400],
    ),
    "chunk data ends in LF": (chunks(b"5\r\nhello\n0\r\n\r\n"), ["POST /", b"hello", 400]),
    "LF in a chunk extension": (chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "CR in a chunk extension": (chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), ["POST /", 400]),
    "chunk extension": (chunks(b'5;a="b c"\r\nhello\r\n0\r\n\r\n'), ["POST /", b"hello", "end"]),
    "100 KB of chunk extension": (chunks(b"5;" + b"a" * 100_000), ["POST /", 400]),
    "trailer": (chunks(b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"), ["POST /", b"hello", "end"]),
    "trailer with a length": (
        chunks(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
        ["POST /", b"hello", 400],
    ),
    "trailer that ends in LF": (
        chunks(b"5\r\nhello\r\n0\r\nA: b\n\r\n"),
        ["POST /", b"hello", 400],
    ),
    "folded trailer": (chunks(b"5\r\nhello\r\n0\r\nA: b\r\n c\r\n\r\n"), ["POST /", b"hello", 400]),
    "100 KB of trailer": (
        chunks(b"5\r\nhello\r\n0\r\nA: " + b"b" * 100_000),
        ["POST /", b"hello", 431],
    ),
    "200 trailers": (
        chunks(b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
        ["POST /", b"hello", 431],
    ),
    "request line of 100 KB": (b"GET /" + b"a" * 100_000, [414]),
    "one field of 100 KB": (get(b"A: " + b"a" * 100_000), [431]),
    "10,000 fields": (get(*[b"A: b"] * 10_000), [431]),
    "101 fields": (get(*[b"A: b"] * 100), [431]),
    "100 fields": (get(*[b"A: b"] * 99), ["GET /"]),
    "pipelined": (GET * 3, ["GET /"] * 3),
    "pipelined after close": (get(b"Connection: close") + SMUGGLED, ["GET /"]),
    "pipelined after a body": (
        post(b"Content-Length: 5") + GET,
        ["POST /", b"hello", "end", "GET /"],
    ),
    "pipelined after chunks": (
        chunks(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n") + GET,
        ["POST /", b"hello world", "end", "GET /"],
    ),
    "a fault after a good request": (GET + b"GET /\r\n", ["GET /", 400]),
    "empty chunks": (chunks(b"0\r\n\r\n") + GET, ["POST /", "end", "GET /"]),
    "length with blanks round it": (post(b"Content-Length: \t5 "), ["POST /", b"hello", "end"]),
    "Expect: 100-continue": (
        post(b"Expect: 100-continue", b"Content-Length: 5"),
        ["POST /", b"hello", "end"],
    ),
    "Expect: 200-ok": (post(b"Expect: 200-ok", b"Content-Length: 5"), [417]),
    "upgrade to h2c": (
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
        + GET,
        ["GET /", "GET /"],
    ),
    "upgrade to h2c with a body": (
        post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5") + GET,
        ["POST /", b"hello", "end", "GET /"],
    ),
    "WebSocket with a body": (
        post(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5"),
        [400],
    ),
    "WebSocket with chunks": (
        post(b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"),
        [400],
    ),
    "CONNECT": (b"CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n", [501]),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1\r\nHost: evil:80\r\n\r\n", [501]),
    "absolute form": (b"GET http://evil/x?y HTTP/1.1\r\nHost: evil\r\n\r\n", ["GET /x?y"]),
    "absolute form without a path": (b"GET http://evil HTTP/1.1\r\nHost: x\r\n\r\n", ["GET /"]),
    "absolute form with a user": (b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", [400]),
    "absolute form of another scheme": (b"GET ftp://b/ HTTP/1.1\r\nHost: b\r\n\r\n", [400]),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", ["OPTIONS *"]),
    "HTTP/1.0 without Host": (b"GET / HTTP/1.0\r\n\r\n", ["GET /"]),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("cut", WAYS)
def test_what_a_message_means(name: str, cut: Callable[[bytes], list[bytes]]) -> None:
    data, expected = MESSAGES[name]
    assert outline(read(cut(data))) == expected


@pytest.mark.parametrize("name", [name for name in MESSAGES if len(MESSAGES[name][0]) < 400])
def test_what_a_message_in_two_pieces_means(name: str) -> None:
    data, expected = MESSAGES[name]
    for pieces in in_two(data):
        assert outline(read(pieces)) == expected, pieces


def accepted(events: list[Event]) -> list[object]:
    """The outline; which of two faults is seen first may depend on the cuts."""
    return ["refused" if isinstance(item, int) else item for item in outline(events)]


@given(st.lists(st.sampled_from([*MESSAGES]), min_size=1, max_size=3), st.data())
def test_cuts_change_nothing(names: list[str], data: st.DataObject) -> None:
    message = b"".join(MESSAGES[name][0] for name in names)[:5000]
    places = data.draw(st.lists(st.integers(0, len(message)), max_size=8).map(sorted))
    ends = [*places, len(message)]
    pieces = [message[a:b] for a, b in zip([0, *places], ends, strict=True)]
    assert accepted(read(pieces)) == accepted(read([message]))


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    read(pieces, eof=True)


@given(st.sampled_from([*MESSAGES]), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_no_change_of_a_good_message_breaks_it(name: str, place: int, byte: bytes) -> None:
    data = MESSAGES[name][0][:3000]
    changed = data[:place] + byte + data[place + 1 :]
    assert accepted(read([changed], eof=True)) == accepted(read(bytewise(changed), eof=True))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ["eof"]),
        (GET, ["GET /", "eof"]),
        (b"GET / HT", [400]),
        (GET[:-2], [400]),
        (b"\r", [400]),
        (post(b"Content-Length: 9"), ["POST /", b"hello", 400]),
        (chunks(b"5\r\nhel"), ["POST /", b"hel", 400]),
        (chunks(b"5\r\nhello\r\n0\r\n"), ["POST /", b"hello", 400]),
    ],
)
def test_end_of_input(data: bytes, expected: list[object]) -> None:
    assert outline(read([data], eof=True)) == expected


def test_after_a_failure_nothing_is_read_or_kept() -> None:
    connection = Http1Connection(Limits())
    connection.receive_data(b"GET /\r\n" + GET)
    assert isinstance(connection.next_event(), Failure)
    connection.receive_data(GET)
    assert connection.next_event() is None
    assert connection.buffered_bytes == 0
    assert not connection.response.keep_alive


def test_an_endless_head_is_refused_at_its_bound() -> None:
    connection = Http1Connection(Limits(max_header_bytes=2048))
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
    sent = 0
    while not isinstance(event := connection.next_event(), Failure):
        connection.receive_data(b"a" * 100)
        sent += 100
    assert event.error.status == 431
    assert 1900 < sent < 2300


@pytest.mark.parametrize("size", [2048, 2049])
def test_the_header_bound_is_exact(size: int) -> None:
    fields = b"Host: x\r\nA: "
    head = b"GET / HTTP/1.1\r\n" + fields + b"a" * (size - len(fields)) + b"\r\n\r\n"
    for cut in WAYS:
        events = read(cut(head), Limits(max_header_bytes=2048))
        assert outline(events) == (["GET /"] if size == 2048 else [431])


@pytest.mark.parametrize("size", [1024, 1025])
def test_the_request_line_bound_is_exact(size: int) -> None:
    line = b"GET /" + b"a" * (size - len(b"GET / HTTP/1.1")) + b" HTTP/1.1\r\n"
    for cut in WAYS:
        events = read(cut(line + b"Host: x\r\n\r\n"), Limits(max_request_line_bytes=1024))
        assert len(events) == 1
        assert isinstance(events[0], Request) == (size == 1024)
        if isinstance(events[0], Failure):
            assert events[0].error.status == 414


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (post(b"Content-Length: 5"), ["POST /", b"hello", "end"]),
        (post(b"Content-Length: 6"), [413]),
        (chunks(b"5\r\nhello\r\n0\r\n\r\n"), ["POST /", b"hello", "end"]),
        (chunks(b"6\r\nhello!\r\n0\r\n\r\n"), ["POST /", 413]),
    ],
)
def test_the_body_bound(data: bytes, expected: list[object]) -> None:
    assert outline(read([data], Limits(max_body_bytes=5))) == expected


def test_requests_wait_for_the_answer_before_them() -> None:
    connection = Http1Connection(Limits())
    connection.receive_data(GET + SMUGGLED)
    first = connection.next_event()
    assert isinstance(first, Request)
    assert connection.next_event() is None
    with pytest.raises(LocalProtocolError):
        connection.start_next_cycle()
    connection.send(ResponseStart(200, []))
    connection.send(ResponseBody(b"", more=True))
    assert not connection.can_start_next_cycle
    connection.send(ResponseBody(b""))
    connection.start_next_cycle()
    second = connection.next_event()
    assert isinstance(second, Request)
    assert second.raw_path == b"/smuggled"


def test_a_cycle_does_not_end_inside_the_body() -> None:
    connection = Http1Connection(Limits())
    connection.receive_data(post(b"Content-Length: 10"))
    connection.next_event()
    connection.send(ResponseStart(200, []))
    connection.send(ResponseBody(b""))
    assert not connection.can_start_next_cycle
    connection.receive_data(b"world")
    assert connection.next_event() == BodyChunk(b"helloworld", more=False)
    assert connection.can_start_next_cycle


def test_idle_is_only_between_requests() -> None:
    connection = Http1Connection(Limits())
    assert connection.is_idle
    connection.receive_data(b"\r\n")
    connection.next_event()
    assert not connection.is_idle
    connection.receive_data(GET)
    connection.next_event()
    assert not connection.is_idle
    connection.send(ResponseStart(200, []))
    connection.send(ResponseBody(b""))
    connection.start_next_cycle()
    assert connection.is_idle


def test_another_protocol_gets_what_came_after_the_head() -> None:
    connection = Http1Connection(Limits())
    connection.receive_data(get(b"Connection: Upgrade", b"Upgrade: websocket") + b"\x81\x00")
    request = connection.next_event()
    assert isinstance(request, Request)
    assert request.wants_websocket
    assert connection.take_buffer() == b"\x81\x00"
    assert connection.phase is HttpPhase.CLOSED


def test_continue_is_sent_when_asked_for_and_not_after_the_answer() -> None:
    connection = Http1Connection(Limits())
    connection.receive_data(post(b"Expect: 100-continue", b"Content-Length: 5", body=b""))
    request = connection.next_event()
    assert isinstance(request, Request)
    assert request.expects_continue
    assert connection.data_to_send() == b""
    connection.send(Continue())
    assert connection.data_to_send() == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(ResponseStart(200, []))
    connection.send(ResponseBody(b""))
    connection.data_to_send()
    connection.send(Continue())
    assert connection.data_to_send() == b""


def test_a_failure_is_answered_by_a_last_response() -> None:
    connection = Http1Connection(Limits(), lambda: [(b"server", b"us", b"server: us\r\n")])
    connection.receive_data(b"HEAD / HTTP/1.0\r\nHost: x\r\n\r\nrubbish\r\n")
    connection.next_event()
    connection.send(ResponseStart(200, []))
    connection.response.close_after()
    connection.send(ResponseBody(b""))
    connection.data_to_send()
    fresh = Http1Connection(Limits(), lambda: [(b"server", b"us", b"server: us\r\n")])
    fresh.receive_data(b"rubbish\r\n")
    fresh.next_event()
    fresh.send(ResponseStart(400, []))
    fresh.send(ResponseBody(b"no"))
    assert fresh.data_to_send() == (
        b"HTTP/1.1 400 Bad Request\r\nserver: us\r\ncontent-length: 2\r\n"
        b"connection: close\r\n\r\nno"
    )


@pytest.mark.parametrize(
    "line",
    [
        b" ",
        b"\x16",
        b"G\xff",
        b"GET(",
        b"GET  ",
        b"GET\t",
        b"GET /#",
        b"GET /\x80",
        b"GET / h",
        b"GET / HTTX",
        b"GET / HTTP/x",
        b"GET / HTTP/11",
        b"GET / HTTP/1.1x",
        b"GET / HTTP/1.1 ",
        b"GET /\r",
    ],
)
def test_a_first_line_is_refused_at_the_octet_that_makes_it_none(line: bytes) -> None:
    connection = Http1Connection(Limits())
    for octet in line[:-1]:
        connection.receive_data(bytes([octet]))
        assert connection.next_event() is None
    connection.receive_data(line[-1:])
    event = connection.next_event()
    assert isinstance(event, Failure)
    assert event.error.status == 400


@pytest.mark.parametrize("name", ["field", "trailer"])
def test_one_field_has_a_bound_of_its_own(name: str) -> None:
    limits = Limits(max_header_field_bytes=300)
    start = b"GET / HTTP/1.1\r\nHost: x\r\n"
    if name == "trailer":
        start += b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    for size, fits in ((300, True), (301, False)):
        field = b"A: " + b"b" * (size - 3)
        events = read([start + b"Other: " + b"c" * 200 + b"\r\n" + field + b"\r\n\r\n"], limits)
        assert (not any(isinstance(event, Failure) for event in events)) is fits
        if not fits:
            assert isinstance(events[-1], Failure)
            assert events[-1].error.status == 431


def test_a_list_of_very_many_elements_is_refused() -> None:
    for name in (b"Connection", b"Upgrade", b"Expect"):
        value = b"websocket," + b"," * 200
        (event,) = read([b"GET / HTTP/1.1\r\nHost: x\r\n%b: %b\r\n\r\n" % (name, value)])
        assert isinstance(event, Failure)
        assert event.error.status == 431
