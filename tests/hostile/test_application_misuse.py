"""An application that breaks ASGI is answered at once, harms nobody else, and is logged.

500 while nothing was sent; afterwards the connection is cut, so that the client can tell a broken
answer from a whole one.  Nothing of what an application puts into a field reaches the wire as a
line of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.hostile.client import ConnectionEnded, RawClient, Response
from tests.hostile.frames import CLOSE, WebSocketClient, close, handshake
from tests.hostile.process import ServerProcess, wait_until

GET = b"GET /%s HTTP/1.1\r\nHost: hostile.test\r\n\r\n"


def ask(client: RawClient, path: str) -> Response | None:
    """The answer, or None if the connection ended without one."""
    client.send(GET % path.encode())
    try:
        return client.response()
    except ConnectionEnded:
        return None


@pytest.mark.parametrize(
    "path",
    [
        "no-response",
        "raise",
        "body-first",
        "unknown-type",
        "bad-status",
        # RFC 9110 section 5.5: CR, LF and NUL are dangerous in a field's value.
        "inject-value",
        "inject-lf",
        "inject-nul",
        # RFC 9110 section 5.1: a field's name is a token.
        "inject-name",
        "empty-name",
        # The ASGI specification: names and values are byte strings.
        "text-header",
        # RFC 9110 section 8.6: a length is digits; two of them are a smuggling tool.
        "bad-length",
        "two-lengths",
    ],
)
def test_answered_with_500(server: ServerProcess, path: str) -> None:
    with RawClient(server.address) as client:
        answer = ask(client, path)
        assert answer is not None, "the client got no answer at all"
        assert answer.status == 500
        assert answer.is_whole
        assert answer.header(b"x-injected") is None
        # No detail of the fault leaves the house.
        assert b"Traceback" not in answer.body
        assert b"Failure" not in answer.body
    server.assert_serves()


@pytest.mark.parametrize("path", ["no-response", "raise", "raise-in-body", "too-long"])
def test_is_logged(server: ServerProcess, path: str) -> None:
    before = server.state().log_bytes
    with RawClient(server.address) as client:
        ask(client, path)
    after = wait_until(lambda: server.state().log_bytes, lambda count: count > before)
    assert after > before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("raise-after-start", b""),
        ("raise-in-body", b"part"),
        ("return-in-body", b"part"),
        ("too-short", b"01234"),
        ("start-twice", b""),
        ("text-body", b""),
    ],
)
def test_broken_off(server: ServerProcess, path: str, body: bytes) -> None:
    with RawClient(server.address) as client:
        answer = ask(client, path)
        if answer is None or answer.status == 500:
            # Fine as well: the head had not left yet.
            return
        assert (answer.status, answer.is_whole) == (200, False)
        assert body.startswith(answer.body)
        assert client.read_to_end() == b""


def test_body_longer_than_stated(server: ServerProcess) -> None:
    # The surplus would be read as the next answer.
    with RawClient(server.address) as client:
        for _ in range(2):
            answer = ask(client, "too-long")
            assert answer is not None
            assert (answer.status, len(answer.body)) == (200, 5)


@pytest.mark.parametrize("path", ["205", "205-with-body", "205-with-length"])
def test_reset_content_says_that_it_is_empty(server: ServerProcess, path: str) -> None:
    # RFC 9110 section 15.3.6: "a server MUST NOT generate content in a 205 response".
    with RawClient(server.address) as client:
        for _ in range(2):
            answer = ask(client, path)
            assert answer is not None
            assert (answer.status, answer.header(b"content-length"), answer.body) == (
                205,
                b"0",
                b"",
            )


def test_body_where_none_may_be(server: ServerProcess) -> None:
    # RFC 9110 section 15.3.5: a 204 ends with its header section.
    with RawClient(server.address) as client:
        answer = ask(client, "204-with-body")
        assert answer is not None
        assert answer.status == 204
        assert answer.header(b"content-length") is None
        assert answer.header(b"transfer-encoding") is None
        client.send(GET % b"next")
        following = client.read_some()
        # Closed in good order, or the next answer stands where it should.
        assert not following or client.response().body == b"GET /next 0"


def test_framing_belongs_to_the_server(server: ServerProcess) -> None:
    # RFC 9112 section 6.2: "A sender MUST NOT send a Content-Length header field in any message
    # that contains a Transfer-Encoding header field."
    with RawClient(server.address) as client:
        answer = ask(client, "own-framing")
        assert answer is not None
        lengths = answer.header(b"content-length")
        codings = answer.header(b"transfer-encoding")
        assert lengths is None or codings is None
        assert answer.status == 500 or (answer.body == b"ok" and codings in {None, b"chunked"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A WebSocket application's fault before accept, and the statuses that answer it."""

    path: str
    statuses: tuple[int, ...]


@pytest.mark.parametrize(
    "case",
    [
        Refusal("raise-first", (500,)),
        Refusal("return-first", (403,)),
        Refusal("send-first", (500,)),
        # w12, w14, w15: a subprotocol that the client did not offer, or that is no token.
        Refusal("subprotocol-crlf", (500,)),
        Refusal("subprotocol-8bit", (500,)),
        Refusal("subprotocol-del", (500,)),
        Refusal("accept-header", (500,)),
    ],
    ids=lambda case: case.path,
)
def test_websocket_refused(server: ServerProcess, case: Refusal) -> None:
    with RawClient(server.address) as client:
        client.send(handshake(f"/{case.path}"))
        answer = client.response()
        assert answer.status in case.statuses
        assert answer.is_whole
        assert answer.header(b"x-injected") is None
    server.assert_serves()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        # RFC 6455 section 7.4.1: 1011, "an unexpected condition that prevented it from fulfilling
        # the request".
        ("raise", 1011),
        ("accept-twice", 1011),
        ("text-is-bytes", 1011),
        # Daphne takes it without an error: nothing is wrong for the client.
        ("return", 1000),
        ("unknown-type", 1000),
        ("empty-send", 1000),
    ],
)
def test_code_that_a_websocket_is_closed_with(server: ServerProcess, path: str, code: int) -> None:
    with WebSocketClient(server.address) as client:
        client.open(f"/{path}")
        assert str(client.read_frame()) == f"close {code}"
        client.send(close(code))
        assert client.read_to_end() == b""


def test_code_that_may_not_be_sent(server: ServerProcess) -> None:
    # RFC 6455 section 7.4.1: 1005 "MUST NOT be set as a status code in a Close control frame".
    with WebSocketClient(server.address) as client:
        client.open("/bad-code")
        frame = client.read_frame()
        assert frame.opcode == CLOSE
        assert str(frame) in {"close 1011", "close empty"}


def test_send_after_close(server: ServerProcess) -> None:
    # RFC 6455 section 5.5.1: no data frame after a close frame.
    with WebSocketClient(server.address) as client:
        client.open("/send-after-close")
        assert str(client.read_frame()) == "close 4001"
        client.send(close(4001))
        assert client.read_to_end() == b""
