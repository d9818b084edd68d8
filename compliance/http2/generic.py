"""What every server does with a client that keeps the rules: 43 cases."""

from __future__ import annotations

import struct

from compliance.http2.case import Answer, Ignored, Says, numbered
from tests.wire.http2 import frames
from tests.wire.http2.frames import GET, POST, block, data, frame, headers, integer

ENDS = frames.END_HEADERS | frames.END_STREAM
HEAD = [(b":method", b"HEAD"), *GET[1:]]


def priority(
    stream: int, depends_on: int = 0, weight: int = 15, *, exclusive: bool = False
) -> bytes:
    payload = struct.pack("!LB", depends_on | exclusive << 31, weight)
    return frame(frames.PRIORITY, 0, stream, payload)


def padded(payload: bytes, size: int) -> bytes:
    return bytes([size]) + payload + bytes(size)


def with_block(fields: bytes, stream: int = 1) -> bytes:
    return frame(frames.HEADERS, ENDS, stream, fields)


def text(value: bytes) -> bytes:
    return integer(len(value), 7) + value


def coded(value: bytes) -> bytes:
    """A string in Huffman's code."""
    return integer(len(value), 7, 0x80) + value


PRIORITY_BLOCK = struct.pack("!LB", 0, 15) + block(GET)
#: "localhost" in Huffman's code (RFC 7541, appendix B).
LOCALHOST = bytes.fromhex("a0e41d139d09")
#: Fields of a request but the authority, from the static table.
INDEXED = b"\x82\x86\x84"

STREAMS = numbered(
    "generic/2",
    ("PRIORITY on an idle stream", priority(1), Ignored()),
    (
        "WINDOW_UPDATE on a stream half-closed by the client",
        headers(1) + frames.window_update(1, 100),
        Answer(),
    ),
    ("PRIORITY on a stream half-closed by the client", headers(1) + priority(1), Answer()),
    ("RST_STREAM on a stream half-closed by the client", headers(1) + frames.rst(1), Ignored()),
    ("PRIORITY on a closed stream", (headers(1), priority(1)), Answer()),
)
FRAMES = [
    *numbered(
        "generic/3.1",
        ("DATA", headers(1, POST, ends=False) + data(1, b"a", ends=True), Answer()),
        (
            "several DATA",
            headers(1, POST, ends=False) + data(1, b"a") + data(1, b"b", ends=True),
            Answer(),
        ),
        (
            "DATA with padding",
            headers(1, POST, ends=False)
            + frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, padded(b"a", 6)),
            Answer(),
        ),
    ),
    *numbered(
        "generic/3.2",
        ("HEADERS", headers(1), Answer()),
        (
            "HEADERS with padding",
            frame(frames.HEADERS, ENDS | frames.PADDED, 1, padded(block(GET), 6)),
            Answer(),
        ),
        (
            "HEADERS with a priority",
            frame(frames.HEADERS, ENDS | frames.HAS_PRIORITY, 1, PRIORITY_BLOCK),
            Answer(),
        ),
    ),
    *numbered(
        "generic/3.3",
        ("PRIORITY with weight 1", priority(1, weight=0) + headers(1), Answer()),
        ("PRIORITY with weight 256", priority(1, weight=255) + headers(1), Answer()),
        ("PRIORITY that depends on a stream", priority(3, 1) + headers(3), Answer(stream=3)),
        ("PRIORITY, exclusive", priority(3, 1, exclusive=True) + headers(3), Answer(stream=3)),
        (
            "PRIORITY on an idle stream, then a lower one",
            priority(5) + headers(3),
            Answer(stream=3),
        ),
    ),
    *numbered("generic/3.4", ("RST_STREAM", headers(1) + frames.rst(1), Ignored())),
    *numbered(
        "generic/3.5",
        (
            "SETTINGS",
            frames.settings((frames.MAX_STREAMS, 100)),
            Says(frames.SETTINGS, frames.ACK, times=2),
        ),
    ),
    *numbered(
        "generic/3.7",
        (
            "PING",
            frame(frames.PING, 0, 0, b"12345678"),
            Says(frames.PING, frames.ACK, b"12345678"),
        ),
    ),
    *numbered("generic/3.8", ("GOAWAY", headers(1) + frames.goaway(), Answer())),
    *numbered(
        "generic/3.9",
        ("WINDOW_UPDATE of the connection", frames.window_update(0, 1) + headers(1), Answer()),
        ("WINDOW_UPDATE of a stream", headers(1) + frames.window_update(1, 1), Answer()),
    ),
    *numbered(
        "generic/3.10",
        (
            "CONTINUATION",
            headers(1, GET[:2], flags=0)
            + frame(frames.CONTINUATION, frames.END_HEADERS, 1, block(GET[2:])),
            Answer(),
        ),
        (
            "several CONTINUATION",
            headers(1, GET[:2], flags=0)
            + frame(frames.CONTINUATION, 0, 1, block(GET[2:3]))
            + frame(frames.CONTINUATION, frames.END_HEADERS, 1, block(GET[3:])),
            Answer(),
        ),
    ),
]
MESSAGES = numbered(
    "generic/4",
    ("GET", headers(1), Answer()),
    ("HEAD", headers(1, HEAD), Answer()),
    ("POST", headers(1, POST, ends=False) + data(1, b"test", ends=True), Answer()),
    (
        "POST with trailers",
        headers(1, [*POST, (b"trailer", b"x-test")], ends=False)
        + data(1, b"test")
        + headers(1, [(b"x-test", b"ok")]),
        Answer(),
    ),
)
HPACK = numbered(
    "generic/5",
    (
        "indexing, with an indexed name",
        with_block(INDEXED + b"\x41" + text(b"localhost")),
        Answer(),
    ),
    ("the same in Huffman's code", with_block(INDEXED + b"\x41" + coded(LOCALHOST)), Answer()),
    (
        "indexing, with a new name",
        with_block(INDEXED + b"\x40" + text(b":authority") + text(b"localhost")),
        Answer(),
    ),
    (
        "indexing, and the value in Huffman's code",
        with_block(INDEXED + b"\x40" + text(b":authority") + coded(LOCALHOST)),
        Answer(),
    ),
    (
        "no indexing, with an indexed name",
        with_block(INDEXED + b"\x01" + text(b"localhost")),
        Answer(),
    ),
    ("the same in Huffman's code", with_block(INDEXED + b"\x01" + coded(LOCALHOST)), Answer()),
    (
        "no indexing, with a new name",
        with_block(INDEXED + b"\x00" + text(b":authority") + text(b"localhost")),
        Answer(),
    ),
    (
        "no indexing, and the value in Huffman's code",
        with_block(INDEXED + b"\x00" + text(b":authority") + coded(LOCALHOST)),
        Answer(),
    ),
    (
        "never indexed, with an indexed name",
        with_block(INDEXED + b"\x11" + text(b"localhost")),
        Answer(),
    ),
    ("the same in Huffman's code", with_block(INDEXED + b"\x11" + coded(LOCALHOST)), Answer()),
    (
        "never indexed, with a new name",
        with_block(INDEXED + b"\x10" + text(b":authority") + text(b"localhost")),
        Answer(),
    ),
    (
        "never indexed, and the value in Huffman's code",
        with_block(INDEXED + b"\x10" + text(b":authority") + coded(LOCALHOST)),
        Answer(),
    ),
    (
        "a field from the dynamic table",
        with_block(INDEXED + b"\x41" + text(b"localhost")) + with_block(INDEXED + b"\xbe", 3),
        Answer(stream=3),
    ),
    (
        "a change of the table's size",
        with_block(b"\x20\x3f\xe1\x1f" + INDEXED + b"\x41" + text(b"localhost")),
        Answer(),
    ),
)
CASES = [
    *numbered("generic/1", ("the connection begins", b"", Ignored())),
    *STREAMS,
    *FRAMES,
    *MESSAGES,
    *HPACK,
]
