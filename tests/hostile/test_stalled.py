"""Connections that stop half-way: each kind has its time, and is closed when that is over."""

from __future__ import annotations

import pytest

from tests.hostile.case import get, post
from tests.hostile.client import ConnectionEnded, RawClient
from tests.hostile.frames import TEXT, WebSocketClient, frame, handshake
from tests.hostile.process import ServerProcess, wait_until

SHORT = 0.4
OPTIONS = {
    "timeouts": {
        "header_timeout": SHORT,
        "keep_alive": SHORT,
        "body_timeout": SHORT,
        "handshake_timeout": SHORT,
        "ping_interval": SHORT,
        "ping_timeout": SHORT,
        "close_timeout": SHORT,
        "http_timeout": 4 * SHORT,
    }
}


def test_nothing_is_sent(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        # RFC 9110 section 15.5.9 allows a 408, or a close without a word.
        assert client.read_to_end()[:12] in {b"", b"HTTP/1.1 408"}


@pytest.mark.parametrize(
    "sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: abc"]
)
def test_head_stops(server: ServerProcess, sent: bytes) -> None:
    with RawClient(server.address) as client:
        client.send(sent)
        assert client.response().status == 408
        assert client.read_to_end() == b""
        assert server.seen(client.port) == []


def test_head_drips(server: ServerProcess) -> None:
    # Slowloris: each byte is progress, but the head as a whole has its time.
    with RawClient(server.address, patience_seconds=0.05) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(200):
            client.send(b"a")
            try:
                if not client.read_some() or client.buffer:
                    break
            except TimeoutError:
                continue
        client.socket.settimeout(3)
        assert client.response().status == 408


@pytest.mark.parametrize(
    ("sent", "octet"),
    [
        pytest.param(post(b"Content-Length: 1000"), b"a", id="length"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"1000\r\n"), b"a", id="chunk"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"1;a="), b"b", id="extension"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"0\r\nA: "), b"b", id="trailer"),
    ],
)
def test_body_drips(server: ServerProcess, sent: bytes, octet: bytes) -> None:
    # Each octet is progress, but 40 are asked for in the 0.4 seconds of SHORT.
    with RawClient(server.address, patience_seconds=0.05) as client:
        client.send(sent)
        for _ in range(200):
            client.send(octet)
            try:
                if not client.read_some() or client.buffer:
                    break
            except TimeoutError:
                continue
        client.socket.settimeout(3)
        assert client.response().status == 408
        server.sees(client.port, "POST / gone")
    assert any("request's body took too long" in line for line in server.state().log)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(post(b"Content-Length: 10", body=b"hello"), id="length"),
        pytest.param(post(b"Transfer-Encoding: chunked", body=b"5\r\nhel"), id="chunk"),
        pytest.param(post(b"Content-Length: 10", b"Expect: 100-continue"), id="expect"),
    ],
)
def test_body_stops(server: ServerProcess, sent: bytes) -> None:
    with RawClient(server.address) as client:
        client.send(sent)
        answer = client.response()
        if answer.status == 100:
            answer = client.response()
        assert answer.status == 408
        assert client.read_to_end() == b""
        server.sees(client.port, "POST / gone")


def test_connection_stays_idle(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(get())
        assert client.response().status == 200
        # No 408 here: a client that sends its next request at this moment would take it for the
        # answer (RFC 9112 section 9.5).
        assert client.read_to_end() == b""


def test_application_does_not_answer(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(get(path=b"/hang"))
        assert client.response().status == 503
        server.sees(client.port, "hangs", "cancelled")


def test_application_does_not_accept(server: ServerProcess) -> None:
    with RawClient(server.address) as client:
        client.send(handshake("/never-accept"))
        assert client.response().status == 403
        assert client.read_to_end() == b""
        seen = wait_until(lambda: server.seen(client.port), lambda notes: len(notes) > 1)
        assert seen[0] == "connect"
        assert seen[1].startswith(("disconnect", "cancelled"))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="silence"),
        pytest.param(frame(TEXT, b"hello")[:-2], id="half-a-frame"),
        pytest.param(frame(TEXT, b"hello")[:1], id="half-a-head"),
    ],
)
def test_websocket_without_pongs(server: ServerProcess, sent: bytes) -> None:
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(sent)
        names = []
        try:
            while True:
                names.append(str(client.read_frame()).split()[0])
        except ConnectionEnded:
            pass
        assert names[0] == "ping"
        server.sees(client.port, "connect", "disconnect 1006")


def test_websocket_with_pongs_lives_on(server: ServerProcess) -> None:
    with WebSocketClient(server.address) as client:
        client.open()
        for _ in range(4):
            ping = client.read_frame()
            assert str(ping).startswith("ping")
            client.send(frame(0xA, ping.payload))
        client.send(frame(TEXT, b"alive"))
        while str(answer := client.read_frame()).startswith("ping"):
            client.send(frame(0xA, answer.payload))
        assert str(answer) == "text 5"
