"""Frames that were damaged: read, or answered with the documented error; nothing else is raised."""

from __future__ import annotations

import random

import pytest

from channels.kit.limits import Limits
from channels.wire.http2.connection import Http2Connection
from channels.wire.http2.events import ConnectionFailed
from tests.wire.http2 import frames
from tests.wire.http2.frames import CONNECT, GET, POST, FrameReader, data, headers

WHOLE = [
    headers(1),
    headers(3, POST, ends=False) + data(3, b"abc") + data(3, b"", ends=True),
    headers(5, CONNECT, ends=False) + data(5, b"\x81\x80abcd"),
    headers(7, GET[:2], flags=0)
    + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 7, frames.block(GET[2:])),
    frames.frame(frames.HEADERS, 0x2D, 9, b"\x02" + bytes(5) + frames.block(GET) + bytes(2)),
    headers(11, POST, ends=False) + headers(11, [(b"a", b"b")]),
    frames.settings((frames.INITIAL_WINDOW, 1000), (frames.MAX_FRAME, 20_000)),
    frames.SETTINGS_ACK,
    frames.frame(frames.PING, 0, 0, bytes(8)),
    frames.window_update(0, 1000) + frames.window_update(3, 5),
    frames.frame(frames.PRIORITY, 0, 3, bytes(5)),
    frames.rst(3) + frames.rst(13),
    frames.goaway(),
    frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4) + frames.block(GET)),
    frames.frame(10, 0, 0, b"\0\3abcde"),
    frames.frame(99, 7, 1, b"unknown"),
]


def damaged(chance: random.Random) -> bytes:
    parts = [chance.choice(WHOLE) for _ in range(chance.randrange(1, 8))]
    whole = bytearray(b"".join(parts))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(whole))
        match chance.randrange(4):
            case 0:
                whole[place] = chance.randrange(256)
            case 1:
                del whole[place : place + chance.randrange(1, 20)]
            case 2:
                whole[place:place] = chance.randbytes(chance.randrange(1, 20))
            case _:
                whole[place] ^= 1 << chance.randrange(8)
        whole = whole or bytearray(b"\0")
    return bytes(whole)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_frames(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        machine = Http2Connection(Limits(http2_max_streams=4))
        reader = FrameReader()
        machine.receive_data(frames.PREFACE + frames.settings(), 0.0)
        is_over = False
        for _ in range(3):
            machine.receive_data(damaged(chance), 0.0)
            while (event := machine.next_event()) is not None:
                assert not is_over
                is_over = isinstance(event, ConnectionFailed)
                stream = getattr(event, "stream_id", None)
                if stream is not None and chance.random() < 0.5:
                    machine.send_head(stream, [(b":status", b"200")], has_ended=False)
                    size = machine.sendable(stream, 3)
                    machine.send_data(stream, b"abc"[:size], has_ended=chance.random() < 0.5)
                    machine.acknowledge(stream, getattr(event, "credit", 0))
                if stream is not None and chance.random() < 0.1:
                    machine.reset(stream, frames.CANCEL)
        heard = [*reader.feed(machine.data_to_send())]
        assert is_over == any(each.kind == frames.GOAWAY for each in heard)
