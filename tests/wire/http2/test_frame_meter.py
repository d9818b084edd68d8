"""What is counted of the frames that come, with the clock turned by hand."""

from __future__ import annotations

import pytest

from channels.kit.limits import Limits
from channels.wire.http2.frame_meter import MOST_FRAGMENTS, Flood, FrameMeter
from tests.wire.http2 import frames


def meter(**limits: float | None) -> FrameMeter:
    return FrameMeter(Limits(**limits))  # type: ignore[arg-type]


def flood(found: FrameMeter, kind: int, times: int, size: int = 8, flags: int = 0) -> int:
    """How many frames are taken at one moment."""
    for number in range(times):
        try:
            found.count(kind, flags, size, 1000.0)
        except Flood:
            return number
    return times


@pytest.mark.parametrize(
    "kind", [frames.SETTINGS, frames.PING, frames.PRIORITY, frames.GOAWAY, frames.WINDOW_UPDATE, 99]
)
def test_control_frames_have_an_allowance(kind: int) -> None:
    assert flood(meter(http2_max_control_rate=8), kind, 1000) == 80
    assert flood(meter(http2_max_control_rate=None), kind, 1000) == 1000


def test_an_allowance_grows_again() -> None:
    found = meter(http2_max_control_rate=8)
    assert flood(found, frames.PING, 1000) == 80
    for number in range(8):
        found.count(frames.PING, 0, 8, 1001.0 + number / 1024)
    with pytest.raises(Flood) as caught:
        found.count(frames.PING, 0, 8, 1001.01)
    assert caught.value.reason == "http2_control_frames"


def test_frames_of_no_octets_count() -> None:
    assert flood(meter(http2_max_control_rate=8), frames.DATA, 1000, size=0) == 80
    assert flood(meter(http2_max_control_rate=8), frames.DATA, 1000, size=64) == 1000
    ends = frames.END_STREAM
    assert flood(meter(http2_max_control_rate=8), frames.DATA, 1000, size=0, flags=ends) == 1000


def test_tiny_frames_count_a_tenth() -> None:
    # 0.1 is no sum of powers of two: one more or less.
    assert 799 <= flood(meter(http2_max_control_rate=8), frames.DATA, 1000, size=63) <= 801
    ends = frames.END_STREAM
    assert flood(meter(http2_max_control_rate=8), frames.DATA, 1000, size=1, flags=ends) == 1000


def test_resets_have_an_allowance() -> None:
    found = meter(http2_max_reset_rate=2)
    assert flood(found, frames.RST_STREAM, 1000) == 20
    with pytest.raises(Flood) as caught:
        found.count_reset(1000.0)
    assert caught.value.reason == "http2_resets"
    assert flood(meter(http2_max_reset_rate=None), frames.RST_STREAM, 1000) == 1000


def test_windows_may_be_opened_for_what_was_sent() -> None:
    found = meter(http2_max_control_rate=1)
    for _ in range(100):
        found.sent(5)
    found.sent(16_384)
    assert flood(found, frames.WINDOW_UPDATE, 5000) == 200 + 34 + 10


def test_a_header_block_is_bounded() -> None:
    found = meter(max_header_bytes=10_000)
    found.count(frames.HEADERS, 0, 5000, 0.0)
    assert found.in_head
    found.count(frames.CONTINUATION, 0, 5000, 0.0)
    with pytest.raises(Flood) as caught:
        found.count(frames.CONTINUATION, 0, 1, 0.0)
    assert caught.value.reason == "http2_header_block"
    found = meter()
    found.count(frames.HEADERS, 0, 1, 0.0)
    assert flood(found, frames.CONTINUATION, 1000, size=1) == MOST_FRAGMENTS - 1


def test_each_block_begins_anew() -> None:
    found = meter(max_header_bytes=1024)
    for _ in range(100):
        found.count(frames.HEADERS, 0, 600, 0.0)
        found.count(frames.CONTINUATION, frames.END_HEADERS, 400, 0.0)
        assert not found.in_head
