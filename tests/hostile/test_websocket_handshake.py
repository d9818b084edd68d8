"""Opening handshakes that break RFC 6455 section 4: refused, and none reaches the application."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.hostile.client import RawClient
from tests.hostile.frames import KEY, WebSocketClient, close, frame, handshake, text
from tests.hostile.process import ServerProcess


@dataclass(frozen=True, slots=True)
class Handshake:
    """A bad opening handshake and the statuses that may answer it."""

    id: str
    data: bytes
    statuses: tuple[int, ...] = (400,)


def without(name: bytes, *instead: bytes) -> bytes:
    return handshake("/", *instead, without=(name,))


BAD = [
    # RFC 6455 section 4.2.1, points 1 to 6: "the server MUST stop processing the client's
    # handshake and return an HTTP response with an appropriate error code (such as 400)".
    Handshake("w01-no-key", without(b"Sec-WebSocket-Key")),
    Handshake("w02-key-of-15-bytes",
        without(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j")),
    Handshake("w02b-key-is-no-base64",
        without(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==")),
    Handshake("w02c-empty-key", without(b"Sec-WebSocket-Key", b"Sec-WebSocket-Key:")),
    # Section 4.4: a version that is not understood is answered with 426 and the right ones.
    Handshake("w03-version-12",
        without(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: 12"), (426, 400)),
    Handshake("w03b-version-is-no-number",
        without(b"Sec-WebSocket-Version", b"Sec-WebSocket-Version: x"), (426, 400)),
    Handshake("w04-no-version", without(b"Sec-WebSocket-Version"), (426, 400)),
    # Point 1: "an HTTP/1.1 or higher GET request".
    Handshake("w05-post", handshake(line=b"POST / HTTP/1.1"), (405, 400)),
    Handshake("w06-http-1.0", handshake(line=b"GET / HTTP/1.0"), (400, 426, 505)),
    # GHSA-mfx4-hv73-q22v: the body of an upgrade was read as frames, or as the next request.
    Handshake("w08-upgrade-with-body", handshake("/", b"Content-Length: 5") + b"hello"),
    Handshake("w08b-upgrade-with-chunks",
        handshake("/", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"),
    Handshake("w09-vertical-tab-in-field", handshake("/", b"X-a: b\x0bX-c: d")),
    Handshake("w09b-line-feed-in-field", handshake("/", b"X-a: b\nX-c: d")),
    Handshake("w10-1000-fields", handshake("/", *[b"X-a: " + b"b" * 200] * 1000), (431,)),
    Handshake("w10b-field-of-100-KB", handshake("/", b"X-a: " + b"b" * 100_000), (431,)),
    Handshake("w10c-target-of-100-KB", handshake("/" + "a" * 100_000), (414,)),
    Handshake("w13-two-keys", handshake("/", b"Sec-WebSocket-Key: " + KEY)),
    Handshake("w13b-two-versions", handshake("/", b"Sec-WebSocket-Version: 13"), (400, 426)),
    # RFC 9112 section 3.2.
    Handshake("w16-no-host", without(b"Host")),
    Handshake("w16b-two-hosts", handshake("/", b"Host: b")),
]  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in BAD])
def test_refused_by_the_server(server: ServerProcess, case: Handshake) -> None:
    with RawClient(server.address) as client:
        client.send(case.data)
        answer = client.response()
        assert answer.status in case.statuses
        assert client.read_to_end() == b""
        if answer.status == 426:
            # RFC 6455 section 4.4: the answer says which versions are understood.
            assert answer.header(b"sec-websocket-version") == b"13"
        server.assert_serves()
        assert server.seen(client.port) == []


def test_no_connection_option_is_plain_http(server: ServerProcess) -> None:
    # w07. RFC 9110 section 7.8: without the "upgrade" option the Upgrade field is ignored.
    with RawClient(server.address) as client:
        client.send(handshake(without=(b"Connection",)))
        assert client.response().status in {200, 400, 426}
        assert "connect" not in server.seen(client.port)


def test_refused_by_the_application(server: ServerProcess) -> None:
    # w11. The ASGI specification: close before accept is 403.
    with RawClient(server.address) as client:
        client.send(handshake("/refuse"))
        assert client.response().status == 403
        assert client.read_to_end() == b""


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"), id="two-options"),
        pytest.param((b"Connection: UPGRADE", b"Upgrade: WebSocket"), id="letter-case"),
        pytest.param((b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 0"),
                     id="empty-body"),
    ],
)  # fmt: skip
def test_unusual_but_right(server: ServerProcess, lines: tuple[bytes, ...]) -> None:
    with WebSocketClient(server.address) as client:
        client.send(handshake("/", *lines, without=(b"Connection", b"Upgrade")))
        assert client.response().status == 101
        client.send(text("still here"))
        assert str(client.read_frame()) == "text 10"


def test_frame_in_the_packet_of_the_handshake(server: ServerProcess) -> None:
    # w40. It is early, but it is there: it must neither be lost nor taken for HTTP.
    with WebSocketClient(server.address) as client:
        client.send(handshake() + text("hello") + close(1000))
        assert client.response().status == 101
        assert [str(client.read_frame()) for _ in range(2)] == ["text 5", "close 1000"]
        server.sees(client.port, "connect", "text 5", "disconnect 1000")


def test_handshake_byte_by_byte(server: ServerProcess) -> None:
    with WebSocketClient(server.address) as client:
        for byte in handshake() + text("hello"):
            client.send(bytes([byte]))
        assert client.response().status == 101
        assert str(client.read_frame()) == "text 5"


@pytest.mark.parametrize(
    "offer",
    [
        b"permessage-deflate; server_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=16",
        b"permessage-deflate; unknown=1",
        b"permessage-deflate; server_no_context_takeover=1",
        b"x-webkit-deflate-frame",
        b"permessage-deflate; permessage-deflate; ;;,,",
        b"a" * 1000,
    ],
)
def test_extension_offers_that_are_not_understood(server: ServerProcess, offer: bytes) -> None:
    # RFC 7692 section 5.1: a bad offer "MUST" be declined; the connection goes on without it, or
    # the handshake is refused where the field itself is malformed.
    with WebSocketClient(server.address) as client:
        client.send(handshake("/", b"Sec-WebSocket-Extensions: " + offer))
        answer = client.response()
        assert answer.status in {101, 400}
        if answer.status == 101:
            assert answer.header(b"sec-websocket-extensions") is None
            client.send(frame(1, b"plain"))
            assert str(client.read_frame()) == "text 5"


def test_subprotocols_not_wanted(server: ServerProcess) -> None:
    # RFC 6455 section 4.2.2: the server that chose none sends no field.
    with WebSocketClient(server.address) as client:
        answer = client.open("/", b"Sec-WebSocket-Protocol: a, b, c")
        assert answer.header(b"sec-websocket-protocol") is None
