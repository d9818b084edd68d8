"""Frames that break RFC 6455: the right close code on the wire, and the same for the application.

What was complete before the violation is delivered first.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.hostile.client import ConnectionEnded
from tests.hostile.frames import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    WebSocketClient,
    close,
    deflated,
    frame,
    text,
)
from tests.hostile.process import ServerProcess, wait_until

MIB = 1 << 20
OPTIONS = {"timeouts": {"close_timeout": 0.3}}
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate"


@dataclass(frozen=True, slots=True)
class Violation:
    """Frames, what the application got of them, and the codes that may end the connection."""

    id: str
    frames: bytes
    codes: tuple[int, ...]
    delivered: tuple[str, ...] = ()
    extensions: tuple[bytes, ...] = ()


FRAMING = [
    # RFC 6455 section 5.1: a server "MUST close the connection upon receiving a frame that is not
    # masked", with 1002 if it says why.
    Violation("w20-unmasked", frame(TEXT, b"hello", masked=False), (1002,)),
    Violation("w20b-unmasked-close", frame(8, b"\x03\xe8", masked=False), (1002,)),
    # Section 5.2: reserved bits "MUST be 0 unless an extension is negotiated".
    Violation("w21-rsv1", frame(TEXT, b"hello", rsv=RSV1), (1002,)),
    Violation("w21b-rsv2", frame(TEXT, b"hello", rsv=RSV2), (1002,)),
    Violation("w21c-rsv3-on-ping", frame(PING, b"", rsv=RSV3), (1002,)),
    # Section 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail_".
    *(
        Violation(f"w22-opcode-{opcode}", frame(opcode, b"hello"), (1002,))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
    # Section 5.5: control frames have at most 125 bytes and "MUST NOT be fragmented".
    Violation("w23-fragmented-ping", frame(PING, b"hello", fin=False), (1002,)),
    Violation("w23b-fragmented-close", frame(8, b"\x03\xe8", fin=False), (1002,)),
    Violation("w24-ping-of-126", frame(PING, b"x" * 126), (1002,)),
    Violation("w24b-pong-of-126", frame(PONG, b"x" * 126), (1002,)),
    Violation("w24c-close-of-126", frame(8, b"\x03\xe8" + b"x" * 124), (1002,)),
    # Section 5.4: order of fragments.
    Violation("w32-orphan-continuation", frame(CONTINUATION, b"hello"), (1002,)),
    Violation("w32b-orphan-after-message", text("ok") + frame(CONTINUATION, b"hello"), (1002,),
              ("text 2",)),
    Violation("w33-text-inside-fragments",
              frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), (1002,)),
    Violation("w33b-binary-inside-fragments",
              frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), (1002,)),
    # Section 5.2: "the most significant bit MUST be 0"; too large as well.
    Violation("w34-length-of-2-to-63", frame(TEXT, b"", claimed=2**63, length_bits=64),
              (1002, 1009)),
    # Section 7.4.1: 1009 for "a message that is too big for it to process".
    Violation("w35-length-of-1-GB", frame(BINARY, b"", claimed=2**30), (1009,)),
]  # fmt: skip

TEXTS = [
    # Section 8.1: bytes that are no UTF-8 "MUST _Fail the WebSocket Connection_"; 1007.
    Violation("w25-bad-utf-8", frame(TEXT, b"\xff\xfe"), (1007,)),
    Violation("w25b-cut-off-code-point", frame(TEXT, b"caf\xc3"), (1007,)),
    Violation("w25c-overlong", frame(TEXT, b"\xc0\xaf"), (1007,)),
    Violation("w25d-beyond-unicode", frame(TEXT, b"\xf4\x90\x80\x80"), (1007,)),
    Violation("w26-bad-utf-8-in-first-fragment",
              frame(TEXT, b"ok\xff", fin=False) + frame(CONTINUATION, b"more"), (1007,)),
    Violation("w26b-bad-across-fragments",
              frame(TEXT, b"caf\xc3", fin=False) + frame(CONTINUATION, b"("), (1007,)),
    Violation("w27-surrogate", frame(TEXT, b"\xed\xa0\x80"), (1007,)),
    # Section 5.5.1: a close's reason is UTF-8 as well.
    Violation("w28-bad-utf-8-in-reason", close(1000, b"\xff"), (1007,)),
    # Section 5.5.1: "the first two bytes of the body MUST be a 2-byte unsigned integer".
    Violation("w29-close-of-one-byte", frame(8, b"\x03"), (1002,)),
    # Section 7.4: codes that may never be sent, or that have no meaning yet.
    *(
        Violation(f"w30-close-{code}", close(code), (1002,))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    ),
]  # fmt: skip

SIZES = [
    Violation("w39-message-of-17-MB", frame(TEXT, b"x" * 17 * MIB), (1009,)),
    Violation("w3a-message-of-2-MB", frame(TEXT, b"x" * 2 * MIB), (1009,)),
    Violation("w3b-one-byte-too-many", frame(BINARY, b"x" * (MIB + 1)), (1009,)),
    Violation("w3c-too-large-in-fragments",
              frame(BINARY, b"x" * MIB, fin=False) + frame(CONTINUATION, b"x"), (1009,)),
    # RFC 7692 section 8.1: what is inflated counts.
    Violation("w56-bomb-of-64-MB", frame(TEXT, deflated(b"x" * 64 * MIB), rsv=RSV1), (1009,),
              extensions=(DEFLATE,)),
    Violation("w56b-not-deflate", frame(TEXT, b"\xff" * 20, rsv=RSV1), (1007, 1002),
              extensions=(DEFLATE,)),
    # RFC 7692 section 6.1: RSV1 only on the first frame of a data message.
    Violation("w56c-rsv1-on-continuation",
              frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=RSV1), (1002,),
              extensions=(DEFLATE,)),
    Violation("w56d-rsv1-on-ping", frame(PING, b"", rsv=RSV1), (1002,), extensions=(DEFLATE,)),
]  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id) for case in FRAMING + TEXTS + SIZES]
)
def test_violation(server: ServerProcess, case: Violation) -> None:
    with WebSocketClient(server.address) as client:
        client.open("/", *case.extensions)
        client.send(case.frames)
        got = [str(client.read_frame()) for _ in range(len(case.delivered) + 1)]
        assert got[:-1] == list(case.delivered)
        assert got[-1] in {f"close {code}" for code in case.codes}
        # The client does not answer the close: the server does not wait for it.
        assert client.read_to_end() == b""
        code = got[-1].split()[1]
        server.sees(client.port, "connect", *case.delivered, f"disconnect {code}")


@pytest.mark.parametrize("case", FRAMING[:6] + TEXTS[:4], ids=lambda case: case.id)
def test_message_before_the_violation_is_answered(server: ServerProcess, case: Violation) -> None:
    # In one packet with the violation: most servers lose the answer.
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(text("good") + case.frames)
        assert str(client.read_frame()) == "text 4"
        assert str(client.read_frame()) == f"close {case.codes[0]}"
        server.sees(client.port, "connect", "text 4", f"disconnect {case.codes[0]}")


@pytest.mark.parametrize("case", FRAMING + TEXTS, ids=lambda case: case.id)
def test_violation_byte_by_byte(server: ServerProcess, case: Violation) -> None:
    with WebSocketClient(server.address) as client:
        client.open()
        for byte in case.frames:
            if not client.send(bytes([byte])):
                break
        got = [str(client.read_frame()) for _ in range(len(case.delivered) + 1)]
        assert got[-1] in {f"close {code}" for code in case.codes}


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param(close(4999), 4999, id="w31-close-4999"),
        pytest.param(close(3000, b"reason"), 3000, id="close-3000"),
        pytest.param(close(1001), 1001, id="close-1001"),
        pytest.param(close(1000) + text("late"), 1000, id="w38-data-after-close"),
        pytest.param(close(1000) + frame(TEXT, b"\xff"), 1000, id="w38b-fault-after-close"),
        pytest.param(close(1000) + close(1001), 1000, id="w38c-second-close"),
    ],
)
def test_close_is_answered_with_its_code(server: ServerProcess, frames: bytes, code: int) -> None:
    # RFC 6455 section 5.5.1: an endpoint "typically echos the status code it received".
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(frames)
        assert str(client.read_frame()) == f"close {code}"
        assert client.read_to_end() == b""
        server.sees(client.port, "connect", f"disconnect {code}")


def test_close_without_code(server: ServerProcess) -> None:
    # RFC 6455 section 7.1.5: 1005 stands for "no status code was received"; never on the wire.
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(close())
        assert str(client.read_frame()) in {"close empty", "close 1000"}
        assert client.read_to_end() == b""
        server.sees(client.port, "connect", "disconnect 1005")


@pytest.mark.parametrize(
    ("frames", "answers"),
    [
        pytest.param(frame(TEXT, b"hello", length_bits=16), ["text 5"], id="w36-length-in-16-bits"),
        pytest.param(frame(TEXT, b"hello", length_bits=64), ["text 5"], id="w37-length-in-64-bits"),
    ],
)
def test_length_in_more_bits_than_needed(
    server: ServerProcess, frames: bytes, answers: list[str]
) -> None:
    # RFC 6455 section 5.2: "the minimal number of bytes MUST be used"; harmless, so either way.
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(frames)
        assert str(client.read_frame()) in {*answers, "close 1002"}


@pytest.mark.parametrize(
    ("frames", "answers"),
    [
        pytest.param(text(""), ["text 0"], id="w3d-empty-text"),
        pytest.param(frame(BINARY), ["bytes 0"], id="w3e-empty-binary"),
        pytest.param(frame(PING, b"x" * 125), ["pong 125"], id="ping-of-125"),
        pytest.param(frame(PONG, b"unasked") + text("a"), ["text 1"], id="pong-unasked"),
        pytest.param(
            frame(TEXT, b"caf\xc3", fin=False)
            + frame(PING, b"in between")
            + frame(CONTINUATION, b"\xa9"),
            ["pong 10", "text 5"],
            id="ping-inside-fragments",
        ),
        pytest.param(
            frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION),
            ["text 0"],
            id="empty-fragments",
        ),
        pytest.param(text("a") * 50, ["text 1"] * 50, id="50-in-one-packet"),
        pytest.param(frame(BINARY, b"x" * MIB), [f"bytes {MIB}"], id="message-of-the-bound"),
    ],
)
def test_unusual_but_right(server: ServerProcess, frames: bytes, answers: list[str]) -> None:
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(frames)
        assert [str(client.read_frame()) for _ in answers] == answers
        client.send(close(1000))
        assert str(client.read_frame()) == "close 1000"


def test_half_close(server: ServerProcess) -> None:
    # w41. RFC 6455 section 7.1.5: the connection ended without a close frame: 1006.
    with WebSocketClient(server.address) as client:
        client.open()
        client.half_close()
        client.read_to_end()
        server.sees(client.port, "connect", "disconnect 1006")


def test_half_close_inside_a_frame(server: ServerProcess) -> None:
    with WebSocketClient(server.address) as client:
        client.open()
        client.send(text("hello")[:-2])
        client.half_close()
        client.read_to_end()
        server.sees(client.port, "connect", "disconnect 1006")


def test_reset(server: ServerProcess) -> None:
    # w42.
    with WebSocketClient(server.address) as client:
        client.open()
        client.reset()
        server.sees(client.port, "connect", "disconnect 1006")


def test_client_that_does_not_answer_a_close(server: ServerProcess) -> None:
    # w43. RFC 6455 section 7.1.1: the server closes TCP itself after a reasonable time.
    with WebSocketClient(server.address) as client:
        client.open("/close-4000")
        frame_ = client.read_frame()
        assert (str(frame_), frame_.payload[2:]) == ("close 4000", b"enough")
        assert client.read_to_end() == b""
        seen = wait_until(lambda: server.seen(client.port), bool)
        assert seen in (["disconnect 4000"], ["disconnect 1006"])


def test_nothing_comes_after_the_close(server: ServerProcess) -> None:
    # RFC 6455 section 5.5.1: pings after a close are not answered any more.
    with WebSocketClient(server.address) as client:
        client.open("/close-4000")
        assert str(client.read_frame()) == "close 4000"
        client.send(frame(PING, b"late") + close(4000))
        with pytest.raises(ConnectionEnded):
            client.read_frame()
