"""A message grows from its frames, up to its bounds."""

from __future__ import annotations

import pytest

from channels.exceptions import RemoteProtocolError
from channels.kit.limits import Limits
from channels.wire.assembly import Assembly
from channels.wire.frames import BINARY, CONTINUATION, TEXT, Header

LIMITS = Limits(max_message_bytes=10, max_frame_bytes=125, max_fragments=3)


def header(opcode: int, length: int, *, reserved: int = 0, is_final: bool = False) -> Header:
    return Header(opcode, is_final, reserved, b"mask", length, 6)


def test_text_is_joined_across_pieces_and_frames() -> None:
    assembly = Assembly(LIMITS)
    assembly.begin(header(TEXT, 3))
    assembly.add(b"a\xe2", is_last=False)
    assembly.add(b"\x82", is_last=False)
    assembly.begin(header(CONTINUATION, 1, is_final=True))
    assembly.add(b"\xac", is_last=True)
    assert assembly.take() == ("a€", 4)
    assert not assembly.is_open
    assembly.begin(header(BINARY, 1, is_final=True))
    assembly.add(b"\xff", is_last=True)
    assert assembly.take() == (b"\xff", 1)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([header(BINARY, 126)], 1009),
        ([header(BINARY, 11)], 1009),
        ([header(BINARY, 1), *[header(CONTINUATION, 1)] * 3], 1008),
    ],
)
def test_a_header_beyond_a_bound_is_refused_before_its_payload(
    frames: list[Header], code: int
) -> None:
    assembly = Assembly(LIMITS)
    for good in frames[:-1]:
        assembly.judge(good)
        assembly.begin(good)
    with pytest.raises(RemoteProtocolError) as caught:
        assembly.judge(frames[-1])
    assert caught.value.close_code == code


def test_a_compressed_message_is_bounded_by_what_it_inflates_to() -> None:
    assembly = Assembly(LIMITS)
    squeezed = header(BINARY, 100, reserved=4)
    assembly.judge(squeezed)
    assembly.begin(squeezed)
    assembly.add(bytes(10), is_last=False)
    with pytest.raises(RemoteProtocolError) as caught:
        assembly.add(b"x", is_last=True)
    assert caught.value.close_code == 1009


def test_bad_text_is_found_in_the_piece_where_it_stands() -> None:
    assembly = Assembly(LIMITS)
    assembly.begin(header(TEXT, 9))
    assembly.add(b"ok\xf4", is_last=False)
    with pytest.raises(RemoteProtocolError) as caught:
        assembly.add(b"\x90", is_last=False)
    assert caught.value.close_code == 1007
