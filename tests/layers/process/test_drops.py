"""What is said of drops, and how often."""

from __future__ import annotations

import pytest

from channels.kit.clock import ManualClock
from channels.layers.process.drops import DropLog, is_drop


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dropped_full", True),
        ("transport_hub_dropped_peer_buffer", True),
        ("expired", True),
        ("transport_hub_expired", True),
        ("dropped_repeated", False),
        ("transport_hub_dropped_repeated", False),
        ("delivered", False),
    ],
)
def test_which_counts_are_drops(name: str, expected: bool) -> None:
    assert is_drop(name) is expected


def test_one_line_in_five_seconds_with_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    clock, counts = ManualClock(), {"sent": 9, "dropped_full": 0}
    log = DropLog(clock, lambda: counts)

    def said() -> list[str]:
        lines = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
        caplog.clear()
        return lines

    def look() -> None:
        if clock.monotonic() >= log.due:
            log.say()

    look()
    assert said() == []
    clock.advance(5)
    for _ in range(100):
        counts["dropped_full"] += 1
        look()
    assert said() == ["dropped_full 1"]
    clock.advance(5)
    counts["expired"] = 2
    look()
    look()
    assert said() == ["dropped_full 99, expired 2"]
    clock.advance(60)
    look()
    assert said() == [], "nothing is new"
    counts["expired"] = 3
    log.say()
    assert said() == ["expired 1"], "the end says it at once"
