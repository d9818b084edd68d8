"""The opening handshake: who is let in, and what the answers look like (RFC 6455 section 4)."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from channels.exceptions import LocalProtocolError, RemoteProtocolError
from channels.kit.types import Headers
from channels.wire.deflate import negotiate
from channels.wire.handshake import (
    Handshake,
    accepted_fields,
    read_handshake,
    switching_protocols,
    wants_websocket,
)
from channels.wire.request import MOST_ELEMENTS

GOOD: Headers = [
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
]


def read(
    *changes: tuple[bytes, bytes | None],
    method: str = "GET",
    http_version: str = "1.1",
    has_body: bool = False,
) -> Handshake:
    """The good request with some fields replaced, or left out where the value is None."""
    names = {name for name, _ in changes}
    headers = [pair for pair in GOOD if pair[0] not in names]
    headers += [(name, value) for name, value in changes if value is not None]
    return read_handshake(
        method=method, http_version=http_version, headers=headers, has_body=has_body
    )


def accept_response(handshake: Handshake, **said: Any) -> bytes:
    return switching_protocols(handshake, accepted_fields(handshake, **said))


def test_a_good_request_is_read() -> None:
    handshake = read(
        (b"sec-websocket-protocol", b"chat, superchat"),
        (b"sec-websocket-protocol", b"v2.chat"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"connection", b"keep-alive, UPGRADE"),
        (b"upgrade", b"WebSocket"),
        (b"content-length", b"0"),
    )
    assert handshake.subprotocols == ("chat", "superchat", "v2.chat")
    assert handshake.extensions == ("permessage-deflate",)


BAD: dict[str, tuple[list[tuple[bytes, bytes | None]], dict[str, Any], int]] = {
    "POST": ([], {"method": "POST"}, 405),
    "HTTP/1.0": ([], {"http_version": "1.0"}, 505),
    "a body": ([], {"has_body": True}, 400),
    "Content-Length": ([(b"content-length", b"5")], {}, 400),
    "Transfer-Encoding": ([(b"transfer-encoding", b"chunked")], {}, 400),
    "no Host": ([(b"host", None)], {}, 400),
    "two Hosts": ([(b"host", b"a"), (b"host", b"b")], {}, 400),
    "no Upgrade": ([(b"upgrade", None)], {}, 426),
    "no Connection": ([(b"connection", b"keep-alive")], {}, 426),
    "no key": ([(b"sec-websocket-key", None)], {}, 400),
    "two keys": ([(b"sec-websocket-key", GOOD[3][1])] * 2, {}, 400),
    "short key": ([(b"sec-websocket-key", b"c2hvcnQ=")], {}, 400),
    "17 bytes": ([(b"sec-websocket-key", b"MDEyMzQ1Njc4OTAxMjM0NTY=")], {}, 400),
    "no base64": ([(b"sec-websocket-key", b"!!!!!!!!!!!!!!!!!!!!!!==")], {}, 400),
    "8-bit key": ([(b"sec-websocket-key", b"\xe9" * 24)], {}, 400),
    "version 12": ([(b"sec-websocket-version", b"12")], {}, 426),
    "no version": ([(b"sec-websocket-version", None)], {}, 400),
    "8-bit subprotocol": ([(b"sec-websocket-protocol", b"caf\xe9")], {}, 400),
    "DEL in subprotocol": ([(b"sec-websocket-protocol", b"a\x7f")], {}, 400),
    "empty subprotocol": ([(b"sec-websocket-protocol", b"a,,b")], {}, 400),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_with_its_status(name: str) -> None:
    changes, arguments, status = BAD[name]
    with pytest.raises(RemoteProtocolError) as caught:
        read(*changes, **arguments)
    assert caught.value.status == status


def test_a_list_of_subprotocols_is_bounded_by_their_number() -> None:
    at_most = b", ".join([b"chat"] * MOST_ELEMENTS)
    assert len(read((b"sec-websocket-protocol", at_most)).subprotocols) == MOST_ELEMENTS
    for fields in ([at_most + b", one.more"], [at_most, b"one.more"], [b"a," * 30_000 + b"a"]):
        with pytest.raises(RemoteProtocolError, match="Over 100") as caught:
            read(*((b"sec-websocket-protocol", value) for value in fields))
        assert caught.value.status == 431


def test_a_subprotocol_may_be_a_long_token() -> None:
    # Clients that cannot set fields of their own send their credentials so.
    token = "ey" + "J" * 14_000
    assert read((b"sec-websocket-protocol", f"jwt, {token}".encode())).subprotocols == (
        "jwt",
        token,
    )


#: The worst of each field: as many parts as 16 KiB have room for, or none to split at.
WORST = [b"a," * 8000, b"," * 16_000, b" " * 16_000, b"a" * 16_000, b'a="' * 4000, b'\\"' * 8000]


@pytest.mark.parametrize(
    "name",
    [
        *(b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version"),
        *(b"sec-websocket-protocol", b"sec-websocket-extensions", b"host"),
    ],
)
@pytest.mark.parametrize("value", WORST, ids=range(len(WORST)))
def test_no_field_takes_long_to_judge(name: bytes, value: bytes) -> None:
    def judge() -> float:
        before = time.thread_time()
        with contextlib.suppress(RemoteProtocolError):
            negotiate(read((name, value)).extensions)
        return time.thread_time() - before

    assert min(judge() for _ in range(5)) < 0.005


def test_only_a_request_that_names_both_wants_a_websocket() -> None:
    assert wants_websocket(GOOD)
    assert not wants_websocket([(b"upgrade", b"h2c"), (b"connection", b"upgrade")])
    assert not wants_websocket([(b"upgrade", b"websocket")])


def test_the_answer_is_that_of_the_rfcs_example() -> None:
    # RFC 6455 section 1.3: this key makes this accept value.
    answer = accept_response(
        read((b"sec-websocket-protocol", b"a, b")),
        subprotocol="b",
        extensions="permessage-deflate",
        headers=[(b"X-Room", b"7")],
    )
    assert answer == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"upgrade: websocket\r\n"
        b"connection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"sec-websocket-protocol: b\r\n"
        b"sec-websocket-extensions: permessage-deflate\r\n"
        b"x-room: 7\r\n\r\n"
    )


@pytest.mark.parametrize("subprotocol", ["c", "", "A", "b\r\nx: y", "\udc80"])
def test_a_subprotocol_that_was_not_offered_is_a_local_error(subprotocol: str) -> None:
    with pytest.raises(LocalProtocolError, match="not offered"):
        accept_response(read((b"sec-websocket-protocol", b"a, b")), subprotocol=subprotocol)


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x\r\ny", b"a"),
        ("x", b"a"),
    ],
)
def test_headers_that_would_break_the_handshake_are_local_errors(header: Any) -> None:
    with pytest.raises(LocalProtocolError):
        accept_response(read(), headers=[header])


@pytest.mark.parametrize(
    "header",
    [
        (b"Sec-WebSocket-Accept", b"a"),
        (b"sec-websocket-protocol", b"a"),
        (b"connection", b"close"),
        (b"content-length", b"5"),
    ],
)
def test_headers_that_the_server_writes_itself_are_left_out(header: Any) -> None:
    assert accept_response(read(), headers=[header]) == accept_response(read())
