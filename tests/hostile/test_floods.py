"""More than anybody can take: reading stops, sending waits, and memory stays where it was."""

from __future__ import annotations

import random

import pytest

from tests.hostile.case import get
from tests.hostile.client import ConnectionEnded, RawClient
from tests.hostile.frames import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    Frame,
    WebSocketClient,
    close,
    deflated,
    frame,
    text,
)
from tests.hostile.process import ServerProcess, wait_until

MIB = 1 << 20
#: How much the process may grow: its buffers' bounds together, and what the allocator rounds up.
#: One read is 256 KiB, which as 2,400 pings take 1.5 to 2.7 MiB for a moment, by Python's build.
SPARE_BYTES = 4 * MIB
#: While a client is not read it cannot say that it goes: a ping finds that out.
TIMEOUTS = {"close_timeout": 0.3, "write_timeout": 3.0, "ping_interval": 0.5, "ping_timeout": 60.0}
OPTIONS = {"timeouts": TIMEOUTS}

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


def frame_after_pings(client: WebSocketClient) -> Frame:
    """The next frame that is no ping: on a busy machine a flood outlasts `ping_interval`."""
    while (got := client.read_frame()).opcode == PING:
        pass
    return got


def read_frames_to_end(client: WebSocketClient) -> bytes:
    """Read whole frames; gives what is left of the last one when the connection ends."""
    while True:
        try:
            client.read_frame()
        except ConnectionEnded as ended:
            return ended.leftover


def assert_grew_little(server: ServerProcess) -> None:
    grown = server.state().resident_bytes - server.calm.resident_bytes
    assert grown < SPARE_BYTES, f"{grown / MIB:.1f} MiB more than before"


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["w50-empty", "w51-one-byte"])
def test_fragments_without_end(own_server: ServerProcess, payload: bytes) -> None:
    # Bytes alone do not bound them: CVE-2026-42786 and its like.
    with WebSocketClient(own_server.address) as client:
        client.open()
        client.send(frame(TEXT, payload, fin=False))
        piece = frame(CONTINUATION, payload, fin=False) * 1000
        client.send_until_blocked(piece, 300)
        assert str(frame_after_pings(client)) in {"close 1008", "close 1009"}
        seen = wait_until(lambda: own_server.seen(client.port), lambda notes: len(notes) == 2)
        assert seen in (["connect", "disconnect 1008"], ["connect", "disconnect 1009"])
    assert_grew_little(own_server)
    own_server.assert_calm()


def test_pings_of_one_who_does_not_read(own_server: ServerProcess) -> None:
    # w52: the pongs pile up unless reading stops.
    with WebSocketClient(own_server.address, receive_buffer_bytes=4096) as client:
        client.open()
        sent = client.send_until_blocked(frame(PING, b"x" * 100) * 1000, 400)
        assert sent < 400
        assert_grew_little(own_server)
    own_server.assert_calm()


def test_empty_pings_of_one_who_does_not_read(own_server: ServerProcess) -> None:
    # 400,000 of them, of which the server takes `max_control_rate` for ten seconds.
    before = own_server.state()
    with WebSocketClient(own_server.address, receive_buffer_bytes=4096) as client:
        client.open()
        client.send_until_blocked(frame(PING) * 1000, 400)
        own_server.sees(client.port, "connect", "disconnect 1008")
        after = own_server.state()
    assert after.resident_bytes - before.resident_bytes < 2 * MIB
    assert after.cpu_seconds - before.cpu_seconds < 0.5
    own_server.assert_calm()


def test_echo_to_one_who_does_not_read(own_server: ServerProcess) -> None:
    # w54.
    with WebSocketClient(own_server.address, receive_buffer_bytes=4096) as client:
        client.open()
        sent = client.send_until_blocked(frame(BINARY, b"x" * 65536), 2000)
        assert sent < 500
        assert_grew_little(own_server)
    own_server.assert_calm()


@pytest.mark.parametrize("size", [10, 1000, 65536])
def test_application_that_does_not_read(own_server: ServerProcess, size: int) -> None:
    # w55.
    piece = frame(BINARY, b"x" * size) * (65536 // size)
    with WebSocketClient(own_server.address) as client:
        client.open("/deaf")
        own_server.sees(client.port, "deaf")
        sent = client.send_until_blocked(piece, 2000)
        assert sent < 500
        assert_grew_little(own_server)
    own_server.assert_calm()


def test_slow_reader_is_cut_off(own_server: ServerProcess) -> None:
    # w53: send() waits; without progress for `write_timeout` the reader is gone.
    with WebSocketClient(own_server.address, receive_buffer_bytes=4096) as client:
        client.open("/flood")
        seen = wait_until(
            lambda: own_server.seen(client.port),
            lambda notes: bool(notes) and notes[-1].startswith("disconnect"),
        )
        assert_grew_little(own_server)
        assert "sent all" not in seen
        assert seen[-1] == "disconnect 3008"
    own_server.assert_calm()


def test_slow_download_is_cut_off(own_server: ServerProcess) -> None:
    with RawClient(own_server.address, receive_buffer_bytes=4096) as client:
        client.send(get(path=b"/download"))
        seen = wait_until(lambda: own_server.seen(client.port), bool)
        assert seen[-1] in {"ended", "send failed"}
        assert_grew_little(own_server)
        assert len(client.read_to_end()) < 16 * MIB
    own_server.assert_calm()


def test_slow_but_steady_reader_is_served(own_server: ServerProcess) -> None:
    # The time runs anew with each progress.
    with WebSocketClient(own_server.address, receive_buffer_bytes=65536) as client:
        client.open("/flood")
        for _ in range(1024):
            assert len(frame_after_pings(client).payload) == 65536
        client.send(close(1000))
        own_server.sees(client.port, "sent all", "disconnect 1000")


@pytest.mark.parametrize("fragment_bytes", [None, 4096], ids=["w56-whole", "w57-in-4-KB-fragments"])
def test_deflate_bomb(own_server: ServerProcess, fragment_bytes: int | None) -> None:
    # RFC 7692 section 8: the size is bounded while it is inflated, not afterwards.
    bomb = deflated(b"\0" * 256 * MIB)
    with WebSocketClient(own_server.address) as client:
        answer = client.open("/", DEFLATE)
        assert answer.header(b"sec-websocket-extensions") is not None
        if fragment_bytes is None:
            client.send(frame(BINARY, bomb, rsv=RSV1))
        else:
            client.send(frame(BINARY, bomb[:fragment_bytes], rsv=RSV1, fin=False))
            for start in range(fragment_bytes, len(bomb), fragment_bytes):
                piece = bomb[start : start + fragment_bytes]
                client.send(frame(CONTINUATION, piece, fin=False))
        assert str(client.read_frame()) == "close 1009"
        own_server.sees(client.port, "connect", "disconnect 1009")
    assert_grew_little(own_server)
    own_server.assert_calm()


def test_random_frames(server: ServerProcess) -> None:
    # w58: whatever comes, nothing is raised inside the server, and the log stays small.
    dice = random.Random(58)
    before = server.state()
    for _ in range(300):
        with WebSocketClient(server.address) as client:
            client.open("/", *([DEFLATE] if dice.random() < 0.5 else []))
            client.send(dice.randbytes(dice.randrange(1, 2000)))
            client.half_close()
            client.read_to_end()
    after = server.state()
    assert after.tracebacks == before.tracebacks
    assert after.log_bytes - before.log_bytes < 100_000


def test_mutated_frames(server: ServerProcess) -> None:
    # Nearly right is worse than random: one byte of a good conversation is changed.
    dice = random.Random(59)
    good = text("hello") + frame(PING, b"p") + frame(TEXT, b"a", fin=False)
    good += frame(CONTINUATION, b"b") + frame(BINARY, b"x" * 300) + close(1000)
    before = server.state().tracebacks
    for _ in range(300):
        data = bytearray(good)
        data[dice.randrange(len(data))] = dice.randrange(256)
        with WebSocketClient(server.address) as client:
            client.open()
            client.send(bytes(data))
            client.half_close()
            assert read_frames_to_end(client) == b""
    assert server.state().tracebacks == before


def test_mutated_requests(server: ServerProcess) -> None:
    dice = random.Random(60)
    good = b"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    good += b"5\r\nhello\r\n0\r\n\r\n"
    before = server.state().tracebacks
    for _ in range(500):
        data = bytearray(good)
        data[dice.randrange(len(data))] = dice.randrange(256)
        with RawClient(server.address) as client:
            client.send(bytes(data))
            client.half_close()
            answers = client.read_to_end()
            assert answers == b"" or answers.startswith(b"HTTP/1.")
            assert b" 500 " not in answers.partition(b"\r\n")[0]
    assert server.state().tracebacks == before
