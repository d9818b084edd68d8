"""Frames are read back by an independent parser."""

from __future__ import annotations

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from channels.fanout.prepared import DEFLATE, DEFLATE_FROM_BYTES, PLAIN, PreparedMessage
from channels.wire.frames import BINARY, PING, TEXT, server_frame


def parse(data: bytes, extensions: list[PerMessageDeflate] | None = None) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
    try:
        while True:
            next(parser)
    except StopIteration as done:
        frame: Frame = done.value
    assert len(data) == frame_size(frame) or extensions
    return frame


def frame_size(frame: Frame) -> int:
    size = len(frame.data)
    return size + (2 if size < 126 else 4 if size < 65536 else 10)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_sizes(size: int, opcode: int) -> None:
    frame = parse(server_frame(opcode, b"x" * size))
    assert (frame.fin, frame.opcode, frame.data) == (True, opcode, b"x" * size)


def test_control_frame() -> None:
    assert parse(server_frame(PING, b"12")).opcode == PING


def test_a_prepared_message_is_framed_once_per_form() -> None:
    message = PreparedMessage(text="grüße")
    assert message.frame() is message.frame(PLAIN)
    frame = parse(message.frame())
    assert (frame.opcode, frame.data) == (TEXT, "grüße".encode())


@pytest.mark.parametrize("size", [DEFLATE_FROM_BYTES - 1, DEFLATE_FROM_BYTES, 10_000])
def test_the_deflated_form_inflates_to_the_message(size: int) -> None:
    message = PreparedMessage(data=b"ab" * (size // 2) + b"c" * (size % 2))
    frame = message.frame(DEFLATE)
    for _ in range(2):
        reader = PerMessageDeflate(
            remote_no_context_takeover=True,
            local_no_context_takeover=True,
            remote_max_window_bits=15,
            local_max_window_bits=15,
        )
        parsed = parse(frame, [reader])
        assert (parsed.opcode, parsed.data) == (BINARY, message.payload)
    assert (len(frame) < size) == (size >= DEFLATE_FROM_BYTES)


@pytest.mark.parametrize("wrong", [{}, {"text": "a", "data": b"a"}])
def test_a_message_is_text_or_bytes(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        PreparedMessage(**wrong)  # type: ignore[arg-type]


def test_empty_messages_exist() -> None:
    assert parse(PreparedMessage(text="").frame()).data == b""
    assert parse(PreparedMessage(data=b"").frame()).opcode == BINARY
