"""The open WebSocket, rule by rule (RFC 6455 sections 5 to 8)."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.exceptions import LocalProtocolError
from channels.kit.limits import Limits
from channels.wire.websocket import (
    NEXT_PHASE,
    READING,
    SENDABLE_CODES,
    SENDING,
    Ended,
    Received,
    SilentFrame,
    WebSocket,
    WebSocketPhase,
)
from tests.wire.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Outcome,
    all_events,
    close,
    events,
    frame,
    read_frames,
    text,
    ways,
)

SMALL = Limits(max_message_bytes=1000, max_frame_bytes=500, max_fragments=4)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_every_length_form_arrive(opcode: int, size: int) -> None:
    payload = b"*" * size
    wanted = payload.decode() if opcode == TEXT else payload
    data = frame(opcode, payload)
    for step in (len(data), 997, 1):
        pieces = [data[i : i + step] for i in range(0, len(data), step)]
        outcome = Outcome(pieces)
        assert outcome.messages == [wanted]
        (event,) = outcome.events
        assert isinstance(event, Received)
        assert event.size == size


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_sent_messages_take_the_shortest_length_form(size: int) -> None:
    machine = WebSocket(Limits())
    machine.send("x" * size)
    machine.send(b"y" * size)
    assert read_frames(machine.data_to_send()) == [(0x81, b"x" * size), (0x82, b"y" * size)]
    assert machine.data_to_send() == b""


CONVERSATION = [
    (text("héllo"), ["héllo"]),
    (frame(BINARY, b"\x00\xff"), [b"\x00\xff"]),
    (text(""), [""]),
    (frame(BINARY), [b""]),
    (frame(TEXT, b"fr\xc3", fin=False) + frame(CONTINUATION, b"\xa9d"), ["fréd"]),
    (
        frame(BINARY, b"a", fin=False)
        + frame(PING, b"p")
        + frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, b"b"),
        [b"ab"],
    ),
    (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b""), [""]),
    (text("long " * 40), ["long " * 40]),
    (text("x" * 125) + text("y" * 126) + text("z" * 127), ["x" * 125, "y" * 126, "z" * 127]),
]


@pytest.mark.parametrize(("data", "messages"), CONVERSATION)
def test_messages_arrive_however_the_bytes_are_cut(data: bytes, messages: list[object]) -> None:
    for pieces in ways(data + close(1000)):
        outcome = Outcome(pieces)
        assert outcome.messages == messages
        assert outcome.ended == (1000, "")


@given(
    st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=8),
    st.lists(st.integers(1, 400)),
    st.integers(1, 50),
)
def test_any_messages_in_any_cuts_and_fragments(
    messages: list[str | bytes], cuts: list[int], fragment: int
) -> None:
    data = b""
    for message in messages:
        raw = message.encode() if isinstance(message, str) else message
        parts = [raw[i : i + fragment] for i in range(0, len(raw), fragment)] or [b""]
        for index, part in enumerate(parts):
            opcode = CONTINUATION if index else (TEXT if isinstance(message, str) else BINARY)
            data += frame(opcode, part, fin=index == len(parts) - 1)
    pieces = []
    for cut in itertools.chain(cuts, [len(data)]):
        pieces.append(data[:cut])
        data = data[cut:]
    outcome = Outcome(pieces)
    assert outcome.messages == messages
    assert outcome.ended is None


#: What a client may do wrong -> (bytes, code on the wire and for the application).
VIOLATIONS = {
    "unmasked": (frame(TEXT, b"x", masked=False), 1002),
    "rsv1 without extension": (frame(TEXT, b"x", rsv=4), 1002),
    "rsv2": (frame(BINARY, b"x", rsv=2), 1002),
    "rsv3": (frame(TEXT, b"x", rsv=1), 1002),
    "rsv on ping": (frame(PING, b"x", rsv=2), 1002),
    "rsv on close": (frame(CLOSE, b"\x03\xe8", rsv=7), 1002),
    **{f"opcode {code}": (frame(code, b"x"), 1002) for code in (3, 4, 5, 6, 7, *range(11, 16))},
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "fragmented pong": (frame(PONG, b"x", fin=False), 1002),
    "fragmented close": (frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "close of 126 bytes": (frame(CLOSE, b"\x03\xe8" + bytes(124)), 1002),
    "orphan continuation": (frame(CONTINUATION, b"x"), 1002),
    "orphan first continuation": (frame(CONTINUATION, b"x", fin=False), 1002),
    "text inside fragments": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "bad text inside fragments": (frame(BINARY, b"a", fin=False) + frame(TEXT, b"\xff"), 1002),
    "binary inside fragments": (frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002),
    "length in 16 bits too many": (frame(TEXT, b"x", length_code=126), 1002),
    "length in 64 bits too many": (frame(TEXT, b"x", length_code=127), 1002),
    "length 126 in 64 bits": (frame(TEXT, b"x" * 126, length_code=127), 1002),
    "length with top bit": (frame(TEXT, b"", length=1 << 63), 1002),
    "close of 1 byte": (frame(CLOSE, b"x"), 1002),
    "close with bad UTF-8": (close(1000, b"\xce\xba\xe1\xbd"), 1007),
    **{
        f"close code {code}": (close(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "bad close inside fragments": (frame(TEXT, b"a", fin=False) + close(1005), 1002),
    "bad reason inside fragments": (frame(TEXT, b"a", fin=False) + close(1000, b"\xff"), 1007),
    "bad UTF-8": (frame(TEXT, b"\xff"), 1007),
    "bad UTF-8 in a long text": (frame(TEXT, b"x" * 200 + b"\xff"), 1007),
    "cut UTF-8": (frame(TEXT, b"\xc3"), 1007),
    "cut UTF-8 at the end of fragments": (
        frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xc3"),
        1007,
    ),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "over U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "frame too big": (frame(BINARY, b"", length=501), 1009),
    "frame of a gigabyte": (frame(BINARY, b"", length=1 << 30), 1009),
    "message too big": (
        frame(BINARY, bytes(400), fin=False)
        + frame(CONTINUATION, bytes(400), fin=False)
        + frame(CONTINUATION, b"", fin=False, length=201),
        1009,
    ),
    "too many fragments": (
        frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 4,
        1008,
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_with_one_code_for_both_sides(name: str) -> None:
    bad, code = VIOLATIONS[name]
    data = text("before") + frame(PING, b"!") + bad + text("after")
    for pieces in ways(data) if len(data) < 300 else ([data], [data[:150], data[150:]]):
        outcome = Outcome(pieces, SMALL)
        assert outcome.messages == ["before"]
        assert outcome.code_told == code
        assert outcome.code_sent == code
        assert outcome.machine.phase is WebSocketPhase.CLOSED
        assert outcome.pongs == [b"!"]


#: Frames of every kind, most of them wrong somewhere.
any_frame = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=140),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 4]),
    masked=st.sampled_from([True, True, True, False]),
)


@given(st.lists(st.one_of(any_frame, st.binary(max_size=20)), max_size=8), st.data())
def test_any_input_means_the_same_however_it_is_cut(
    frames: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(frames)
    once = Outcome([whole], SMALL)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=4).map(sorted))
    bounds = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in itertools.pairwise(bounds)]
    for other in (Outcome(pieces, SMALL), Outcome([bytes([byte]) for byte in whole], SMALL)):
        assert other.messages == once.messages
        assert other.pongs == once.pongs
        assert (other.code_told, other.code_sent) == (once.code_told, once.code_sent)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xce\xba\xe1", fin=False) + frame(CONTINUATION, b"\xff", fin=False), 1007),
        # Inside a frame whose end never comes: the text's mistake is already there.
        (frame(TEXT, b"x" * 100 + b"\xff" + b"y" * 300)[:120], 1007),
        (frame(TEXT, "κόσμε".encode() + b"\xf4\x90" + b"\x80\x80edited")[:19], 1007),
        (frame(TEXT, b"x", masked=False)[:2], 1002),
        (frame(PING, b"x", length_code=126)[:2], 1002),
        (frame(BINARY, b"", length=1 << 62)[:14], 1009),
    ],
)
def test_a_violation_is_found_before_the_message_is_complete(data: bytes, code: int) -> None:
    for pieces in ways(data):
        assert Outcome(pieces).code_sent == code


VALID_TEXTS = [
    "κόσμε",
    "\x00",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\uffff",
    "\ufffd",
    "\ufffe",
    "\ud7ff",
    "\ue000",
    "\U00010000",
    "\U0010ffff",
    "\U0001fffe",
]
INVALID_UTF8 = [
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xc3\x28",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xe2\x28\xa1",
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xfe\xfe\xff\xff",
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
]


@pytest.mark.parametrize("message", VALID_TEXTS)
def test_valid_text_may_be_split_anywhere(message: str) -> None:
    raw = message.encode()
    for place in range(len(raw) + 1):
        data = frame(TEXT, raw[:place], fin=False) + frame(CONTINUATION, raw[place:])
        assert Outcome([data]).messages == [message]


@pytest.mark.parametrize("raw", INVALID_UTF8, ids=bytes.hex)
def test_invalid_text_is_refused_wherever_it_is_split(raw: bytes) -> None:
    assert Outcome([frame(TEXT, raw)]).code_sent == 1007
    assert Outcome([frame(TEXT, b"x" * 130 + raw)]).code_sent == 1007
    for place in range(len(raw) + 1):
        data = frame(TEXT, raw[:place], fin=False) + frame(CONTINUATION, raw[place:])
        outcome = Outcome([data])
        assert outcome.messages == []
        assert outcome.code_told == outcome.code_sent == 1007


def test_pings_are_answered_with_their_payload_and_pongs_tell_nothing() -> None:
    data = frame(PING) + frame(PING, b"\x00\xff") + frame(PING, bytes(125)) + frame(PONG, b"me")
    for pieces in ways(data):
        outcome = Outcome(pieces)
        assert outcome.pongs == [b"", b"\x00\xff", bytes(125)]
        assert outcome.events == []


def test_each_frame_is_an_event_so_that_a_shell_may_stop_after_any() -> None:
    data = frame(PING) + frame(PONG) + frame(TEXT, b"a", fin=False) + frame(CONTINUATION, fin=False)
    machine = WebSocket(Limits())
    machine.receive_data(data + frame(CONTINUATION, b"b") + frame(BINARY, bytes(70_000)))
    found = all_events(machine)
    assert found[:4] == [
        SilentFrame(PING),
        SilentFrame(PONG),
        SilentFrame(TEXT),
        SilentFrame(CONTINUATION),
    ]
    assert [event.is_control for event in found[:4] if isinstance(event, SilentFrame)] == [
        *(True, True),
        *(False, False),
    ]
    assert found[4:] == [Received("ab", 2), Received(bytes(70_000), 70_000)]


def test_after_our_close_frame_each_frame_is_an_event_and_no_message() -> None:
    machine = WebSocket(Limits())
    machine.send_close()
    machine.receive_data(text("late") + frame(PING) + frame(BINARY, bytes(70_000)) + close(1000))
    *late, last = all_events(machine)
    assert [type(event) for event in late] == [SilentFrame, SilentFrame, SilentFrame]
    assert isinstance(last, Ended)


def test_a_frame_that_is_not_whole_is_known() -> None:
    for data in (text("hello"), frame(PING, b"p"), frame(BINARY, bytes(70_000))):
        for size in (0, 1, 5, 6, len(data) - 1, len(data)):
            machine = WebSocket(Limits())
            machine.receive_data(data[:size])
            events(machine)
            assert machine.is_inside_frame == (0 < size < len(data)), size
            machine.receive_data(data[size:])
            events(machine)
            assert not machine.is_inside_frame


def test_a_rule_of_the_shells_ends_it_as_a_violation_does() -> None:
    machine = WebSocket(Limits())
    machine.receive_data(frame(PING) * 3 + text("he")[:-1])
    machine.next_event()
    assert machine.fail(1008, "Too many.") == Ended(1008, "Too many.")
    assert all_events(machine) == []
    assert not machine.is_inside_frame
    machine.finish()
    sent = read_frames(machine.data_to_send())
    assert sent == [(0x80 | PONG, b""), (0x80 | CLOSE, struct.pack("!H", 1008) + b"Too many.")]
    assert machine.phase is WebSocketPhase.CLOSED


def test_a_full_message_does_not_make_a_ping_too_big() -> None:
    data = (
        frame(BINARY, bytes(500), fin=False)
        + frame(CONTINUATION, bytes(500), fin=False)
        + frame(PING, bytes(125))
        + frame(CONTINUATION)
    )
    outcome = Outcome([data], SMALL)
    assert outcome.pongs == [bytes(125)]
    assert outcome.messages == [bytes(1000)]


def test_frames_wait_as_bytes_until_they_are_asked_for() -> None:
    machine = WebSocket(Limits())
    machine.receive_data(text("one") + frame(PING, b"p") + text("two") + b"\xff")
    assert machine.next_event() == Received("one", 3)
    assert machine.data_to_send() == b"", "the ping behind the message has not been looked at"
    machine.receive_data(b"more")
    assert machine.next_event() == SilentFrame(PING)
    assert machine.next_event() == Received("two", 3)
    assert read_frames(machine.data_to_send()) == [(0x80 | PONG, b"p")]
    assert machine.phase is WebSocketPhase.OPEN
    assert isinstance(machine.next_event(), Ended)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4999])
@pytest.mark.parametrize("reason", ["", "bye", "é" * 61])
def test_the_peers_close_is_echoed_by_code(code: int, reason: str) -> None:
    for pieces in ways(close(code, reason.encode()) + text("ignored")):
        outcome = Outcome(pieces)
        assert outcome.ended == (code, reason)
        assert outcome.code_sent == code
        assert outcome.messages == []


def test_a_close_inside_a_fragmented_message_is_a_good_close() -> None:
    for pieces in ways(frame(TEXT, b"a", fin=False) + close(4000) + frame(CONTINUATION, b"b")):
        outcome = Outcome(pieces)
        assert outcome.messages == []
        assert outcome.ended == (4000, "")
        assert outcome.code_sent == 4000


def test_an_empty_close_is_echoed_empty_and_told_as_1005() -> None:
    outcome = Outcome([close(None)])
    assert outcome.ended == (1005, "")
    assert outcome.frames == [(0x80 | CLOSE, b"")]


def test_the_application_may_speak_until_the_answer_to_a_close_is_written() -> None:
    machine = WebSocket(Limits())
    machine.receive_data(text("question") + close(1000))
    assert events(machine) == [Received("question", 8), Ended(1000, "")]
    machine.send("answer")
    assert not machine.close_expected
    machine.finish()
    assert machine.close_expected
    assert [first for first, _ in read_frames(machine.data_to_send())] == [0x81, 0x88]
    with pytest.raises(LocalProtocolError, match="closed"):
        machine.send("too late")


def test_own_close_waits_for_the_peers_and_tells_its_code() -> None:
    machine = WebSocket(Limits())
    machine.send_close(4000, "enough")
    assert machine.phase is WebSocketPhase.CLOSING
    assert machine.close_expected
    assert read_frames(machine.data_to_send()) == [(0x88, struct.pack("!H", 4000) + b"enough")]
    # RFC 6455 section 5.5.1: no data frames after a close frame; what crossed it is dropped.
    machine.receive_data(text("crossed") + frame(PING, b"p") + close(4000))
    assert events(machine) == [Ended(4000, "")]
    assert machine.ended == Ended(4000, "")
    assert machine.data_to_send() == b""


def test_a_close_after_the_peers_close_ends_the_handshake_with_the_peers_code() -> None:
    machine = WebSocket(Limits())
    machine.receive_data(close(1001))
    events(machine)
    machine.send_close(1000)
    assert read_frames(machine.data_to_send()) == [(0x88, struct.pack("!H", 1001))]
    assert machine.phase is WebSocketPhase.CLOSED


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, True, "x"])
def test_codes_that_no_close_frame_carries_are_refused(code: int) -> None:
    machine = WebSocket(Limits())
    with pytest.raises(LocalProtocolError, match="close code"):
        machine.send_close(code)
    assert machine.phase is WebSocketPhase.OPEN


def test_long_reasons_are_cut_between_two_characters() -> None:
    machine = WebSocket(Limits())
    machine.send_close(1000, "é" * 62)
    assert len(machine.data_to_send()) == 2 + 2 + 122


def test_a_lone_surrogate_cannot_be_sent() -> None:
    machine = WebSocket(Limits())
    with pytest.raises(LocalProtocolError, match="Unicode"):
        machine.send("\ud800")
    assert machine.data_to_send() == b""


@pytest.mark.parametrize("begun", [b"", b"\x81", frame(TEXT, b"half")[:-1]])
def test_end_of_input_without_close_is_1006(begun: bytes) -> None:
    machine = WebSocket(Limits())
    machine.receive_data(text("whole") + begun)
    machine.receive_eof()
    assert events(machine) == [Received("whole", 5), Ended(1006, "")]
    assert machine.phase is WebSocketPhase.CLOSED
    assert events(machine) == []


def test_end_of_input_after_own_close_is_1006() -> None:
    machine = WebSocket(Limits())
    machine.send_close(1000)
    machine.receive_eof()
    assert events(machine) == [Ended(1006, "")]


def test_a_violation_after_own_close_is_not_answered_twice() -> None:
    machine = WebSocket(Limits())
    machine.send_close(1000)
    machine.data_to_send()
    machine.receive_data(frame(TEXT, b"x", masked=False))
    assert events(machine) == [Ended(1006, "")]
    machine.finish()
    assert machine.data_to_send() == b""


def test_input_after_the_end_is_dropped() -> None:
    machine = WebSocket(Limits())
    machine.receive_data(close(1000))
    assert events(machine) == [Ended(1000, "")]
    machine.receive_data(text("more"))
    machine.receive_eof()
    assert events(machine) == []
    assert machine.ended == Ended(1000, "")


@pytest.mark.parametrize("largest", [1, 50, 125])
def test_a_message_limit_below_a_short_frame_holds(largest: int) -> None:
    limits = Limits(max_message_bytes=largest)
    assert Outcome([frame(BINARY, bytes(largest))], limits).messages == [bytes(largest)]
    assert Outcome([frame(BINARY, bytes(largest + 1))], limits).code_sent == 1009


def test_without_limits_large_messages_pass() -> None:
    limits = Limits(max_message_bytes=None, max_frame_bytes=None)
    payload = bytes(3 * 1024 * 1024)
    assert Outcome([frame(BINARY, payload)], limits).messages == [payload]


def test_every_transition_leads_towards_closed() -> None:
    order = [
        WebSocketPhase.OPEN,
        WebSocketPhase.ANSWERING,
        WebSocketPhase.FAILING,
        WebSocketPhase.CLOSING,
        WebSocketPhase.CLOSED,
    ]
    for (before, _), after in NEXT_PHASE.items():
        assert order.index(after) > order.index(before)
    assert WebSocketPhase.CLOSED not in READING + SENDING
    assert {before for before, _ in NEXT_PHASE} == set(WebSocketPhase) - {WebSocketPhase.CLOSED}


def test_sendable_codes_are_those_of_the_registry() -> None:
    assert min(SENDABLE_CODES) == 1000
    assert max(SENDABLE_CODES) == 4999
    assert not SENDABLE_CODES & {1004, 1005, 1006, 1015, 1016, 2999}
