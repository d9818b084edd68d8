"""Frames, cut everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.backends.local import frames
from channels.backends.local.frames import FrameError, Splitter, frame, pack_many, unpack_many

FRAMES = [
    (frames.HELLO, b"node", b"body"),
    (frames.PING, b"", b""),
    (frames.GROUP, b"room", b"x" * 300),
    (frames.PUSH, b"q", b""),
]
STREAM = b"".join(frame(*each) for each in FRAMES)


def read(splitter: Splitter, data: bytes) -> list[tuple[int, bytes, bytes]]:
    data, spans = splitter.split(data)
    return [
        (kind, data[start + frames.HEAD.size : name_end], data[name_end:end])
        for kind, start, name_end, end in spans
    ]


def test_whole() -> None:
    assert read(Splitter(1000), STREAM) == FRAMES


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_cut_in_two(cut: int) -> None:
    splitter = Splitter(1000)
    assert read(splitter, STREAM[:cut]) + read(splitter, STREAM[cut:]) == FRAMES


def test_byte_by_byte() -> None:
    splitter = Splitter(1000)
    found = [each for at in range(len(STREAM)) for each in read(splitter, STREAM[at : at + 1])]
    assert found == FRAMES


def test_a_frame_is_passed_on_as_it_came() -> None:
    data, spans = Splitter(1000).split(STREAM)
    assert [data[start:end] for _, start, _, end in spans] == [frame(*each) for each in FRAMES]


def test_the_longest_frame_fits_and_one_octet_more_does_not() -> None:
    longest = frame(frames.GROUP, b"room", b"x" * 100)
    assert read(Splitter(len(longest)), longest)
    with pytest.raises(FrameError, match=r"the longest frame has 110"):
        Splitter(len(longest) - 1).split(longest)


def test_a_length_alone_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(FrameError):
        Splitter(1000).split(frames.HEAD.pack(0xFFFFFFFF, frames.GROUP, 0))


def test_a_name_longer_than_its_frame() -> None:
    with pytest.raises(FrameError):
        Splitter(1000).split(frames.HEAD.pack(3, frames.GROUP, 4) + b"room")


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_lists(parts: list[bytes]) -> None:
    assert list(unpack_many(pack_many(parts))) == parts


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7, 8, 9, 10, 11])
def test_a_cut_list_is_refused(length: int) -> None:
    with pytest.raises(FrameError):
        unpack_many(pack_many([b"a", b"bcd"])[:length])


@given(st.binary(max_size=200))
def test_any_octets_are_frames_or_an_error(data: bytes) -> None:
    splitter = Splitter(150)
    try:
        read(splitter, data)
    except FrameError:
        return
