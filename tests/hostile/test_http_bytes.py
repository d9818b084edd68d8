"""Every byte from 0 to 255 in every place of a request: taken as it is, or refused; never split."""

from __future__ import annotations

import string

import pytest

from tests.hostile.client import ConnectionEnded, RawClient
from tests.hostile.frames import handshake
from tests.hostile.process import ServerProcess

TOKEN = set((string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode())
#: RFC 3986 section 3.3: pchar and "/"; section 3.4 adds "?" for queries.
UNRESERVED = set((string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%").encode())
VISIBLE = set(range(0x21, 0x7F))
OBS_TEXT = set(range(0x80, 0x100))

#: Place -> (request with the byte at %s, bytes that must pass, bytes that may pass).
PLACES: dict[str, tuple[bytes, set[int], set[int]]] = {
    # RFC 9110 section 5.6.2: field-name = token.
    "header-name": (b"GET /headers HTTP/1.1\r\nHost: a\r\nX-a%sb: c\r\n\r\n", TOKEN, {0x3A}),
    # RFC 9110 section 5.5: field-content = VCHAR, SP, HTAB, obs-text.
    "header-value": (
        b"GET /headers HTTP/1.1\r\nHost: a\r\nX-a: b%sc\r\n\r\n",
        VISIBLE | OBS_TEXT | {0x20, 0x09},
        set(),
    ),
    # RFC 9112 section 3.2; "?" begins the query, the other visible ones are not URI characters.
    "path": (
        b"GET /a%sb HTTP/1.1\r\nHost: a\r\n\r\n",
        UNRESERVED | {0x3F},
        VISIBLE - {0x23},
    ),
    "query": (b"GET /?a%sb HTTP/1.1\r\nHost: a\r\n\r\n", UNRESERVED | {0x3F}, VISIBLE - {0x23}),
    # RFC 9110 section 9.1: method = token.
    "method": (b"GE%sT / HTTP/1.1\r\nHost: a\r\n\r\n", set(), TOKEN),
    "version": (b"GET / HTTP/1.%s\r\nHost: a\r\n\r\n", {0x31}, {0x30, *b"23456789"}),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_byte(server: ServerProcess, place: str) -> None:
    form, must, may = PLACES[place]
    wrong = []
    for value in range(256):
        one = bytes([value])
        sent = form.replace(b"%s", one)
        status, body = _status_and_body(server, sent)
        if value in must or (value in may and status == 200):
            fine = status == 200 and _as_sent(place, one, body)
        else:
            fine = 400 <= status <= 505 and status != 500
        if not fine:
            wrong.append(f"{one!r}: {status} {body[:80]!r}")
    assert wrong == []


def _as_sent(place: str, one: bytes, body: bytes) -> bool:
    """The byte reached the application where it stood, and made no new field."""
    if place in {"path", "query"}:
        return body == b"GET /%sa%sb 0" % (b"?" if place == "query" else b"", one)
    if place == "header-name":
        # A colon ends the name: what follows it is the value.
        field = b"x-a=b: c" if one == b":" else b"x-a%sb=c" % one.lower()
        # CGI-like environments cannot tell "_" from "-": a name with it may be dropped whole.
        return body == b"host=a\n" + field or (one == b"_" and body == b"host=a")
    if place == "header-value":
        return body.split(b"\n") == [b"host=a", b"x-a=b%sc" % one]
    return True


def _status_and_body(server: ServerProcess, sent: bytes) -> tuple[int, bytes]:
    with RawClient(server.address) as client:
        client.send(sent)
        try:
            answer = client.response()
        except (ConnectionEnded, TimeoutError) as error:
            return 0, repr(error).encode()
        return answer.status, answer.body


@pytest.mark.parametrize(
    "name", [b"X-a", b"Origin", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions", b"Cookie"]
)
def test_every_byte_in_a_websocket_handshake(server: ServerProcess, name: bytes) -> None:
    # CVE-2026-42544 and CVE-2026-44546: a byte in a header field killed the worker, or split the
    # field in two.  Here each is accepted or refused, and control characters never pass.
    wrong = []
    for value in range(256):
        sent = handshake("/", name + b": a" + bytes([value]) + b"b")
        status, body = _status_and_body(server, sent)
        must_refuse = (value < 0x20 and value != 0x09) or value == 0x7F
        if status not in ({400} if must_refuse else {101, 400}):
            wrong.append(f"{bytes([value])!r}: {status} {body[:80]!r}")
    assert wrong == []


def test_bytes_in_the_log_are_escaped(server: ServerProcess) -> None:
    # CVE-2020-7694: an escape sequence from a path moved the terminal's cursor.
    with RawClient(server.address) as client:
        client.send(
            b"GET /mark%1b%5b2J%0ainjected HTTP/1.1\r\nHost: a\r\nUser-Agent: mark\x9b2J\r\n\r\n"
        )
        assert client.response().status == 200
    logged = [line for line in server.state().log if "/mark" in line]
    assert logged != []
    assert all(line.isprintable() for line in logged)
    assert not any(line.startswith("injected") for line in server.state().log)
