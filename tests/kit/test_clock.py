"""The clock that tests turn by hand."""

from __future__ import annotations

import pytest

from channels.kit.clock import ManualClock, SystemClock


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(10)
    assert (clock.monotonic(), clock.time()) == (10, 10)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (12.5, 12.5)


def test_a_clock_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="backwards"):
        ManualClock().advance(-1)


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.time() > 1_700_000_000
