"""What a server does with a client that breaks RFC 9113: 95 cases."""

from __future__ import annotations

import struct

from compliance.http2.case import (
    CLOSED,
    COMPRESSION,
    FLOW,
    PROTOCOL,
    REFUSED,
    SIZE,
    Answer,
    Case,
    Ignored,
    Says,
    Sends,
    connection_error,
    numbered,
    stream_error,
)
from compliance.http2.generic import ENDS, priority
from tests.wire.http2 import frames
from tests.wire.http2.frames import (
    CONTINUATION,
    GET,
    POST,
    block,
    data,
    frame,
    headers,
    rst,
    settings,
    window_update,
)

OPEN = headers(1, POST, ends=False)
UNFINISHED = headers(1, flags=0)
CLOSED_BY_CLIENT = OPEN + rst(1)
REST = frame(CONTINUATION, frames.END_HEADERS, 1, block([(b"a", b"b")]))
BROKEN = connection_error(PROTOCOL)
WRONG_SIZE = connection_error(SIZE)
MALFORMED = stream_error(PROTOCOL)
WAITS = [(name, b"/wait" if name == b":path" else value) for name, value in GET]


def without(name: bytes) -> bytes:
    return headers(1, [pair for pair in GET if pair[0] != name])


def twice(name: bytes) -> bytes:
    return headers(1, [*GET, *(pair for pair in GET if pair[0] == name)])


def setting(number: int, value: int) -> bytes:
    return settings((number, value))


SECTION_3_TO_4 = [
    *numbered("http2/3.5", ("the preface is answered with settings", b"", Says(frames.SETTINGS))),
    Case("http2/3.5/2", "an invalid preface", (), BROKEN, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    *numbered(
        "http2/4.1",
        ("a frame of an unknown type", frame(22, 0, 0, b"a"), Ignored()),
        ("undefined flags", frame(frames.PING, 0x16, 0, bytes(8)), Ignored()),
        ("the reserved bit", frame(frames.PING, 0, 1 << 31, bytes(8)), Ignored()),
    ),
    *numbered(
        "http2/4.2",
        ("DATA of 16,384 octets", OPEN + data(1, bytes(16_384), ends=True), Answer()),
        ("DATA of more", OPEN + data(1, bytes(16_385)), stream_error(SIZE)),
        (
            "HEADERS of more",
            frame(frames.HEADERS, ENDS, 1, block([*GET, (b"a", b"b" * 16_384)])),
            WRONG_SIZE,
        ),
    ),
    *numbered(
        "http2/4.3",
        (
            "a field section that cannot be read",
            frame(frames.HEADERS, ENDS, 1, b"\x40\x85\xff\xff\xff"),
            connection_error(COMPRESSION),
        ),
        ("PRIORITY inside a field section", UNFINISHED + priority(1), BROKEN),
        ("HEADERS of another stream inside one", UNFINISHED + headers(3), BROKEN),
    ),
]
SECTION_5 = [
    *numbered(
        "http2/5.1",
        ("idle: DATA", data(1, b"a", ends=True), BROKEN),
        ("idle: RST_STREAM", rst(1), BROKEN),
        ("idle: WINDOW_UPDATE", window_update(1, 100), BROKEN),
        ("idle: CONTINUATION", REST, BROKEN),
        ("half-closed: DATA", headers(1) + data(1, b"a"), stream_error(CLOSED)),
        ("half-closed: HEADERS", headers(1) + headers(1), stream_error(CLOSED)),
        ("half-closed: CONTINUATION", headers(1) + REST, connection_error(CLOSED, PROTOCOL)),
        ("closed by a reset: DATA", CLOSED_BY_CLIENT + data(1, b"a"), stream_error(CLOSED)),
        ("closed by a reset: HEADERS", CLOSED_BY_CLIENT + headers(1), stream_error(CLOSED)),
        (
            "closed by a reset: CONTINUATION",
            CLOSED_BY_CLIENT + REST,
            connection_error(CLOSED, PROTOCOL),
        ),
        ("closed: DATA", (headers(1), data(1, b"a")), stream_error(CLOSED)),
        ("closed: HEADERS", (headers(1), headers(1)), connection_error(CLOSED)),
        ("closed: CONTINUATION", (headers(1), REST), connection_error(CLOSED, PROTOCOL)),
    ),
    *numbered(
        "http2/5.1.1",
        ("a stream of an even number", headers(2), BROKEN),
        ("a stream of a lower number", headers(5) + headers(3), BROKEN),
    ),
    *numbered(
        "http2/5.1.2",
        (
            "a stream over the bound",
            b"".join(headers(2 * number + 1, WAITS) for number in range(101)),
            stream_error(PROTOCOL, REFUSED, stream=201),
        ),
    ),
    *numbered(
        "http2/5.3.1",
        (
            "HEADERS that depends on itself",
            frame(
                frames.HEADERS,
                ENDS | frames.HAS_PRIORITY,
                1,
                struct.pack("!LB", 1, 255) + block(GET),
            ),
            MALFORMED,
        ),
        ("PRIORITY that depends on itself", priority(1, 1), MALFORMED),
    ),
    *numbered(
        "http2/5.4.1",
        ("the connection ends after an error", headers(0), BROKEN),
        (
            "a GOAWAY names the last stream before the end",
            (headers(1), frame(frames.PING, 0, 3, bytes(8))),
            BROKEN,
        ),
    ),
    *numbered(
        "http2/5.5",
        ("an extension's frame", frame(0xF0, 0, 0, b"abc") + headers(1), Answer()),
        ("an extension's frame inside a field section", UNFINISHED + frame(0xF0, 0, 1), BROKEN),
    ),
]
SECTION_6_TO_6_4 = [
    *numbered(
        "http2/6.1",
        ("DATA on stream 0", data(0, b"a"), BROKEN),
        ("DATA on a stream that is not open", headers(1) + data(1, b"a"), stream_error(CLOSED)),
        (
            "DATA with more padding than octets",
            OPEN + frame(frames.DATA, frames.PADDED, 1, b"\x06abc"),
            BROKEN,
        ),
    ),
    *numbered(
        "http2/6.2",
        ("HEADERS without its end, then PRIORITY", UNFINISHED + priority(1), BROKEN),
        ("HEADERS without its end, then another stream's", UNFINISHED + headers(3), BROKEN),
        ("HEADERS on stream 0", headers(0), BROKEN),
        (
            "HEADERS with more padding than octets",
            frame(frames.HEADERS, ENDS | frames.PADDED, 1, b"\xff" + block(GET)),
            BROKEN,
        ),
    ),
    *numbered(
        "http2/6.3",
        ("PRIORITY on stream 0", priority(0), BROKEN),
        (
            "PRIORITY of 4 octets",
            headers(1) + frame(frames.PRIORITY, 0, 1, bytes(4)),
            stream_error(SIZE),
        ),
    ),
    *numbered(
        "http2/6.4",
        ("RST_STREAM on stream 0", rst(0), BROKEN),
        ("RST_STREAM on an idle stream", rst(1), BROKEN),
        ("RST_STREAM of 3 octets", OPEN + frame(frames.RST_STREAM, 0, 1, bytes(3)), WRONG_SIZE),
    ),
]
SECTION_6_5_TO_6_8 = [
    *numbered(
        "http2/6.5",
        (
            "an acknowledgement with a setting",
            frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
            WRONG_SIZE,
        ),
        ("SETTINGS on a stream", OPEN + frame(frames.SETTINGS, 0, 1), BROKEN),
        ("SETTINGS of 3 octets", frame(frames.SETTINGS, 0, 0, bytes(3)), WRONG_SIZE),
    ),
    *numbered(
        "http2/6.5.2",
        ("ENABLE_PUSH of 2", setting(frames.ENABLE_PUSH, 2), BROKEN),
        (
            "INITIAL_WINDOW_SIZE over its bound",
            setting(frames.INITIAL_WINDOW, 2**31),
            connection_error(FLOW),
        ),
        ("MAX_FRAME_SIZE under its bound", setting(frames.MAX_FRAME, 2**14 - 1), BROKEN),
        ("MAX_FRAME_SIZE over its bound", setting(frames.MAX_FRAME, 2**24), BROKEN),
        ("an unknown setting", setting(0xFF, 1), Ignored()),
    ),
    *numbered(
        "http2/6.5.3",
        (
            "the last of two values holds",
            settings((frames.INITIAL_WINDOW, 100), (frames.INITIAL_WINDOW, 300))
            + headers(1, [(name, b"/long" if name == b":path" else value) for name, value in GET]),
            Sends((300,)),
        ),
        (
            "settings are acknowledged",
            setting(frames.ENABLE_PUSH, 0),
            Says(frames.SETTINGS, frames.ACK, b"", times=2),
        ),
    ),
    *numbered(
        "http2/6.7",
        (
            "PING is answered",
            frame(frames.PING, 0, 0, b"abcdefgh"),
            Says(frames.PING, frames.ACK, b"abcdefgh"),
        ),
        (
            "an answer is not answered",
            frame(frames.PING, frames.ACK, 0, b"abcdefgh"),
            Says(frames.PING, frames.ACK, b"abcdefgh", times=0),
        ),
        ("PING on a stream", frame(frames.PING, 0, 1, bytes(8)), BROKEN),
        ("PING of 6 octets", frame(frames.PING, 0, 0, bytes(6)), WRONG_SIZE),
    ),
    *numbered("http2/6.8", ("GOAWAY on a stream", frame(frames.GOAWAY, 0, 1, bytes(8)), BROKEN)),
]
LONG = headers(1, [(name, b"/long" if name == b":path" else value) for name, value in GET])
SECTION_6_9 = [
    *numbered(
        "http2/6.9",
        ("an increment of 0 for the connection", window_update(0, 0), BROKEN),
        ("an increment of 0 for a stream", OPEN + window_update(1, 0), MALFORMED),
        ("WINDOW_UPDATE of 3 octets", frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)), WRONG_SIZE),
    ),
    *numbered(
        "http2/6.9.1",
        (
            "no more is sent than the window",
            setting(frames.INITIAL_WINDOW, 1000) + LONG,
            Sends((1000,)),
        ),
        (
            "the connection's window over its bound",
            window_update(0, 2**31 - 1) * 2,
            connection_error(FLOW),
        ),
        (
            "a stream's window over its bound",
            OPEN + window_update(1, 2**31 - 1) * 2,
            stream_error(FLOW),
        ),
    ),
    *numbered(
        "http2/6.9.2",
        (
            "a window that changes while a stream is open",
            (setting(frames.INITIAL_WINDOW, 300) + LONG, setting(frames.INITIAL_WINDOW, 1000)),
            Sends((300, 700)),
        ),
        (
            "a window below zero",
            (
                setting(frames.INITIAL_WINDOW, 1000) + LONG,
                setting(frames.INITIAL_WINDOW, 300),
                window_update(1, 700),
                window_update(1, 300),
            ),
            Sends((1000, 300)),
        ),
        (
            "a window over its bound",
            OPEN + window_update(1, 2**31 - 1 - 65_535) + setting(frames.INITIAL_WINDOW, 65_536),
            connection_error(FLOW),
        ),
    ),
]
PIECES = [
    frame(CONTINUATION, 0, 1, block([pair])) for pair in [*GET[1:], (b"a", b"b"), (b"c", b"d")]
]
SECTION_6_10 = numbered(
    "http2/6.10",
    (
        "many CONTINUATION",
        headers(1, GET[:1], flags=0)
        + b"".join(PIECES)
        + frame(CONTINUATION, frames.END_HEADERS, 1, block([(b"e", b"f")])),
        Answer(),
    ),
    ("CONTINUATION, then DATA", UNFINISHED + PIECES[-1] + data(1, b"a"), BROKEN),
    ("CONTINUATION on stream 0", UNFINISHED + frame(CONTINUATION, 4, 0, b""), BROKEN),
    ("CONTINUATION behind a whole HEADERS", OPEN + REST, BROKEN),
    (
        "CONTINUATION behind a whole CONTINUATION",
        headers(1, ends=False, flags=0) + REST * 2,
        BROKEN,
    ),
    ("CONTINUATION behind DATA", OPEN + data(1, b"a") + REST, BROKEN),
)
SECTION_7_TO_8 = [
    *numbered(
        "http2/7",
        ("GOAWAY with an unknown code", frames.goaway(0, 0xFF), Ignored()),
        ("RST_STREAM with an unknown code", OPEN + rst(1, 0xFF), Ignored()),
    ),
    *numbered(
        "http2/8.1",
        (
            "a second HEADERS that ends nothing",
            OPEN + headers(1, [(b"a", b"b")], ends=False),
            MALFORMED,
        ),
    ),
    *numbered(
        "http2/8.1.2", ("a name in upper case", headers(1, [*GET, (b"X-TEST", b"a")]), MALFORMED)
    ),
    *numbered(
        "http2/8.1.2.1",
        ("an unknown pseudo-header field", headers(1, [*GET, (b":test", b"a")]), MALFORMED),
        ("one of a response", headers(1, [*GET, (b":status", b"200")]), MALFORMED),
        ("one in trailers", OPEN + headers(1, [(b":method", b"GET")]), MALFORMED),
        ("one behind another field", headers(1, [*GET[:3], (b"a", b"b"), GET[3]]), MALFORMED),
    ),
    *numbered(
        "http2/8.1.2.2",
        (
            "a field about the connection",
            headers(1, [*GET, (b"connection", b"keep-alive")]),
            MALFORMED,
        ),
        ("TE with another value", headers(1, [*GET, (b"te", b"trailers, deflate")]), MALFORMED),
    ),
    *numbered(
        "http2/8.1.2.3",
        (
            "an empty :path",
            headers(1, [(n, b"" if n == b":path" else v) for n, v in GET]),
            MALFORMED,
        ),
        ("no :method", without(b":method"), MALFORMED),
        ("no :scheme", without(b":scheme"), MALFORMED),
        ("no :path", without(b":path"), MALFORMED),
        ("two :method", twice(b":method"), MALFORMED),
        ("two :scheme", twice(b":scheme"), MALFORMED),
        ("two :path", twice(b":path"), MALFORMED),
    ),
    *numbered(
        "http2/8.1.2.6",
        (
            "a Content-Length that DATA does not fill",
            headers(1, [*POST, (b"content-length", b"5")], ends=False) + data(1, b"abc", ends=True),
            MALFORMED,
        ),
        (
            "the same with several DATA",
            headers(1, [*POST, (b"content-length", b"5")], ends=False)
            + data(1, b"abc")
            + data(1, b"def", ends=True),
            MALFORMED,
        ),
    ),
    *numbered(
        "http2/8.2",
        (
            "PUSH_PROMISE",
            OPEN + frame(frames.PUSH_PROMISE, 4, 1, struct.pack("!L", 3) + block(GET)),
            BROKEN,
        ),
    ),
]
CASES = [
    *SECTION_3_TO_4,
    *SECTION_5,
    *SECTION_6_TO_6_4,
    *SECTION_6_5_TO_6_8,
    *SECTION_6_9,
    *SECTION_6_10,
    *SECTION_7_TO_8,
]
