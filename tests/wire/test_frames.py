"""Frames are read back by an independent parser."""

from __future__ import annotations

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.streams import StreamReader

from channels.exceptions import RemoteProtocolError
from channels.fanout.prepared import DEFLATE, PLAIN, PreparedMessage
from channels.wire.deflate import DEFLATE_FROM_BYTES
from channels.wire.frames import BINARY, PING, TEXT, read_header, server_frame
from tests.wire.peer import MASK, frame


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


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 1 << 20])
@pytest.mark.parametrize("masked", [True, False])
def test_a_header_is_read_as_soon_as_it_is_whole(length: int, masked: bool) -> None:
    data = b"??" + frame(TEXT, b"", fin=False, rsv=5, masked=masked, length=length)
    header = read_header(data, 2)
    assert header is not None
    assert (header.opcode, header.is_final, header.reserved) == (TEXT, False, 5)
    assert (header.length, header.size) == (length, len(data) - 2)
    assert header.mask == (MASK if masked else b"")
    for end in range(2, len(data)):
        assert read_header(data[:end], 2) is None


def test_data_and_control_frames_are_told_apart() -> None:
    for opcode in range(16):
        header = read_header(frame(opcode), 0)
        assert header is not None
        assert header.is_control == (opcode >= 8)


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"", length_code=126, length=125),
        frame(TEXT, b"", length_code=127, length=65535),
        frame(TEXT, b"", length=1 << 63),
        frame(PING, b"", length_code=126, length=200),
    ],
)
def test_a_length_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_header(data, 0)
