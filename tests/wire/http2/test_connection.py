"""The machine: bytes in, events out; the clock is an argument."""

from __future__ import annotations

from typing import Any

import pytest

from channels.kit.limits import Limits
from channels.wire.http2.connection import Http2Connection
from channels.wire.http2.events import (
    ConnectionFailed,
    Drained,
    Event,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamRefused,
    StreamReset,
    WindowOpened,
)
from channels.wire.http2.head_decoder import HIDDEN_LENGTH
from channels.wire.http2.own_frames import refusal
from tests.wire.http2 import frames
from tests.wire.http2.frames import GET, POST, FrameReader, data, headers, rst, settings


class Peer:
    """A client that says what it is told to, at one moment."""

    def __init__(self, **limits: Any) -> None:
        self.machine = Http2Connection(Limits(**limits))
        self.reader = FrameReader()
        self.now = 0.0
        self.say(frames.PREFACE, settings())
        self.first = self.hear()

    def say(self, *parts: bytes) -> list[Event]:
        self.machine.receive_data(b"".join(parts), self.now)
        return self.events()

    def events(self) -> list[Event]:
        found = []
        while (event := self.machine.next_event()) is not None:
            found.append(event)
        return [event for event in found if not isinstance(event, WindowOpened)]

    def hear(self) -> list[frames.Frame]:
        return [*self.reader.feed(self.machine.data_to_send())]


def test_settings_and_window_open_the_connection() -> None:
    peer = Peer(http2_max_streams=7, http2_stream_window_bytes=5000, http2_window_bytes=100_000)
    first, window, ack = peer.first
    pairs = {
        int.from_bytes(first.payload[i : i + 2]): int.from_bytes(first.payload[i + 2 : i + 6])
        for i in range(0, len(first.payload), 6)
    }
    assert pairs[frames.MAX_STREAMS] == 7
    assert pairs[frames.INITIAL_WINDOW] == 5000
    assert pairs[frames.ENABLE_CONNECT] == 1
    assert (window.kind, window.stream) == (frames.WINDOW_UPDATE, 0)
    assert int.from_bytes(window.payload) == 100_000 - 65535
    assert (ack.kind, ack.flags) == (frames.SETTINGS, frames.ACK)


WHOLE = headers(1, POST, ends=False) + data(1, b"ab") + data(1, b"c", ends=True) + headers(3)


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    return [(type(event).__name__, getattr(event, "stream_id", 0)) for event in events]


ALL = [
    ("StreamOpened", 1),
    ("StreamData", 1),
    ("StreamData", 1),
    ("StreamEnded", 1),
    ("StreamOpened", 3),
    ("StreamEnded", 3),
]


def test_requests_come_as_events() -> None:
    events = Peer().say(WHOLE)
    assert kinds(events) == ALL
    assert isinstance(events[0], StreamOpened)
    assert events[0].request.method == "POST"
    assert b"".join(event.data for event in events if isinstance(event, StreamData)) == b"abc"


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_cut_in_two_at_every_place(cut: int) -> None:
    peer = Peer()
    assert kinds(peer.say(WHOLE[:cut]) + peer.say(WHOLE[cut:])) == ALL


def test_byte_by_byte() -> None:
    peer = Peer()
    events = [event for byte in WHOLE for event in peer.say(bytes([byte]))]
    assert kinds(events) == ALL


def test_a_response_goes_out_in_frames_that_the_window_allows() -> None:
    peer = Peer()
    peer.say(settings((frames.INITIAL_WINDOW, 1000)), headers(1))
    machine = peer.machine
    machine.send_head(1, [(b":status", b"200")], has_ended=False)
    assert machine.sendable(1, 5000) == 1000
    machine.send_data(1, bytes(1000), has_ended=False)
    assert machine.sendable(1, 4000) == 0
    peer.say(frames.window_update(1, 100))
    # Not worth a frame; the rest of a short body is.
    assert machine.sendable(1, 4000) == 0
    assert machine.sendable(1, 80) == 80
    machine.send_data(1, bytes(80), has_ended=True)
    heard = [each for each in peer.hear() if each.stream == 1]
    assert [(each.kind, len(each.payload), each.ends_stream) for each in heard[1:]] == [
        (frames.DATA, 1000, False),
        (frames.DATA, 80, True),
    ]
    assert heard[0].status == 200


def test_what_is_used_is_acknowledged() -> None:
    peer = Peer(http2_stream_window_bytes=2000)
    peer.say(headers(1, POST, ends=False), data(1, bytes(1500)))
    assert not [each for each in peer.hear() if each.kind == frames.WINDOW_UPDATE]
    peer.machine.acknowledge(1, 1500)
    (update,) = peer.hear()
    assert (update.kind, update.stream) == (frames.WINDOW_UPDATE, 1)
    assert int.from_bytes(update.payload) == 1500


def test_more_than_the_window_ends_the_connection() -> None:
    peer = Peer(http2_stream_window_bytes=2000)
    events = peer.say(headers(1, POST, ends=False), data(1, bytes(2001)))
    assert isinstance(events[-1], ConnectionFailed)
    assert peer.hear()[-1].code == frames.FLOW_CONTROL_ERROR


def test_a_malformed_request_is_told_with_its_status() -> None:
    (event, end) = Peer().say(headers(1, [*GET, (b"X", b"y")]))
    assert isinstance(event, StreamRefused)
    assert event.error.status == 400
    assert isinstance(end, StreamEnded)


def test_one_stream_too_many_is_refused_alone() -> None:
    peer = Peer(http2_max_streams=2)
    events = peer.say(headers(1), headers(3), headers(5))
    assert kinds(events) == [
        ("StreamOpened", 1),
        ("StreamEnded", 1),
        ("StreamOpened", 3),
        ("StreamEnded", 3),
    ]
    (reset,) = [each for each in peer.hear() if each.kind == frames.RST_STREAM]
    assert (reset.stream, reset.code) == (5, frames.REFUSED_STREAM)
    peer.machine.close(1)
    assert ("StreamOpened", 7) in kinds(peer.say(headers(7)))


def test_a_reset_stream_is_gone() -> None:
    peer = Peer()
    events = peer.say(headers(1, POST, ends=False), rst(1))
    assert isinstance(events[-1], StreamReset)
    # Whoever is answering it does not know yet.
    peer.machine.send_head(1, [(b":status", b"200")], has_ended=False)
    peer.machine.send_data(1, b"late", has_ended=True)
    assert not [each for each in peer.hear() if each.stream == 1]


def test_a_client_that_says_goodbye_is_still_answered() -> None:
    peer = Peer()
    events = peer.say(headers(1), frames.goaway(), headers(3))
    assert ("StreamOpened", 1) in kinds(events)
    assert ("StreamOpened", 3) in kinds(events)
    peer.machine.send_head(1, [(b":status", b"204")], has_ended=True)
    assert peer.hear()[-1].status == 204


def test_draining_takes_two_steps() -> None:
    peer = Peer()
    peer.say(headers(1))
    peer.machine.drain()
    first, ping = peer.hear()
    assert (first.kind, first.code) == (frames.GOAWAY, frames.NO_ERROR)
    assert int.from_bytes(first.payload[:4]) == 2**31 - 1
    assert kinds(peer.say(headers(3))) == [("StreamOpened", 3), ("StreamEnded", 3)]
    pong = frames.frame(frames.PING, frames.ACK, 0, ping.payload)
    assert [type(event) for event in peer.say(pong)] == [Drained]
    peer.machine.go_away()
    (second,) = peer.hear()
    assert int.from_bytes(second.payload[:4]) == 3
    assert peer.say(headers(5)) == []
    (reset,) = peer.hear()
    assert reset.code == frames.REFUSED_STREAM
    # What was opened before is answered.
    peer.machine.send_head(3, [(b":status", b"204")], has_ended=True)
    assert peer.hear()[-1].status == 204


@pytest.mark.parametrize(
    ("flood", "reason"),
    [
        (frames.frame(frames.PING, 0, 0, bytes(8)) * 2000, "http2_control_frames"),
        (settings() * 2000, "http2_control_frames"),
        (headers(1, POST, ends=False) + data(1) * 2000, "http2_control_frames"),
        (headers(1, flags=0) + frames.frame(9, 0, 1, b"\0" * 999) * 99, "http2_header_block"),
        (
            b"".join(headers(2 * n + 1) + rst(2 * n + 1) for n in range(300)),
            "http2_resets",
        ),
    ],
)
def test_a_flood_ends_the_connection(flood: bytes, reason: str) -> None:
    peer = Peer()
    failure = peer.say(flood)[-1]
    assert isinstance(failure, ConnectionFailed)
    assert failure.flood == reason
    last = peer.hear()[-1]
    assert (last.kind, last.code) == (frames.GOAWAY, frames.ENHANCE_YOUR_CALM)
    assert peer.say(headers(1001)) == []


def test_a_bomb_is_not_unpacked() -> None:
    peer = Peer()
    field = b"\x40" + frames.integer(1, 7) + b"a" + frames.integer(4000, 7) + b"b" * 4000
    bomb = field + b"\xbe" * 16_000
    failure = peer.say(
        frames.frame(frames.HEADERS, 0, 1, bomb[:16384]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, bomb[16384:]),
    )[-1]
    assert isinstance(failure, ConnectionFailed)
    assert failure.flood == "http2_header_block"


def test_the_peers_table_size_is_not_ours() -> None:
    peer = Peer()
    peer.say(settings((frames.HEADER_TABLE_SIZE, 2**31)), headers(1), headers(3))
    for stream, letter in ((1, b"a"), (3, b"b")):
        fields = [(b":status", b"200"), *((b"x-%d" % n, letter * 500) for n in range(20))]
        peer.machine.send_head(stream, fields, has_ended=True)
    # A decoder with a table of the default size understands it.
    assert len([each for each in peer.hear() if each.kind == frames.HEADERS]) == 2


def test_few_frames_are_read_at_a_time() -> None:
    peer = Peer()
    peer.machine.receive_data(b"".join(headers(2 * n + 1) for n in range(99)), 0.0)
    for _ in range(4):
        peer.machine.next_event()
    assert peer.machine.last_stream_id < 99


@pytest.mark.parametrize(
    "bytes_",
    [
        frames.frame(frames.DATA, 0, 0, b"a"),
        headers(2),
        frames.frame(frames.CONTINUATION, 0, 1, b"a"),
        b"\x00\x40\x01" + headers()[3:],
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_a_broken_rule_ends_the_connection(bytes_: bytes) -> None:
    peer = Peer()
    failure = peer.say(bytes_)[-1]
    assert isinstance(failure, ConnectionFailed)
    assert failure.why
    assert not failure.flood
    assert peer.hear()[-1].kind == frames.GOAWAY


def test_a_wrong_preface_ends_the_connection() -> None:
    machine = Http2Connection(Limits())
    machine.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    assert isinstance(machine.next_event(), ConnectionFailed)


def test_a_refusal_is_a_whole_connection() -> None:
    first, last = FrameReader().feed(refusal("no"))
    assert first.kind == frames.SETTINGS
    assert (last.kind, last.code) == (frames.GOAWAY, frames.ENHANCE_YOUR_CALM)


def sized(size: bytes, *parts: bytes) -> bytes:
    """A request whose Content-Length is `size`, with what follows its head."""
    return headers(1, [*POST, (b"content-length", size)], ends=False) + b"".join(parts)


TRAILERS = headers(1, [(b"x-checksum", b"1")])


@pytest.mark.parametrize(
    "sent",
    [
        sized(b"5", data(1, b"abc", ends=True)),
        sized(b"5", data(1, b"abc"), data(1, b"def")),
        sized(b"5", data(1, b"abc"), data(1, b"def", ends=True)),
        sized(b"5", data(1, b"abcdefgh"), data(1, b"ijk"), data(1, ends=True)),
        sized(b"5", TRAILERS),
        sized(b"5", data(1, b"abc"), TRAILERS),
        sized(b"0", data(1, b"a", ends=True)),
        # The body of an extended CONNECT is the WebSocket.
        headers(1, [*frames.CONNECT, (b"content-length", b"2")], ends=False) + data(1, b"abc"),
    ],
)
def test_a_body_of_another_size_than_said_ends_its_stream_alone(sent: bytes) -> None:
    peer = Peer()
    events = peer.say(sent, headers(3))
    assert kinds(events)[0] == ("StreamOpened", 1)
    assert kinds(events)[-3:] == [("StreamReset", 1), ("StreamOpened", 3), ("StreamEnded", 3)]
    resets = [(each.stream, each.code) for each in peer.hear() if each.kind == frames.RST_STREAM]
    assert resets[0] == (1, frames.PROTOCOL_ERROR)


@pytest.mark.parametrize("value", [b"abc", b"+5", b"-1", b"", b"9" * 5000, b"5, 5"])
def test_a_malformed_length_refuses_its_request_alone(value: bytes) -> None:
    events = Peer().say(sized(value), headers(3))
    assert kinds(events) == [("StreamRefused", 1), ("StreamOpened", 3), ("StreamEnded", 3)]


def test_a_whole_body_of_the_size_that_was_said() -> None:
    sent = sized(b"5", data(1, b"abc"), data(1, b"de"), TRAILERS)
    events = Peer().say(sent)
    assert kinds(events)[-1] == ("StreamEnded", 1)
    assert isinstance(events[0], StreamOpened)
    assert (b"content-length", b"5") in events[0].request.headers


def test_the_name_that_stands_for_content_length_is_refused_from_a_client() -> None:
    fields = [*POST, (HIDDEN_LENGTH, b"3")]
    assert kinds(Peer().say(headers(1, fields, ends=False))) == [("StreamRefused", 1)]


def test_streams_that_are_ended_for_their_bodies_count_as_resets() -> None:
    peer = Peer(http2_max_reset_rate=2.0)
    sent = b"".join(
        headers(number, [*POST, (b"content-length", b"1")], ends=False)
        + data(number, b"ab", ends=True)
        for number in range(1, 101, 2)
    )
    assert isinstance(peer.say(sent)[-1], ConnectionFailed)
