"""What is said of drops and how often, and who is told of gaps."""

from __future__ import annotations

import asyncio

import pytest

from channels.exceptions import ChannelFull
from channels.kit.clock import ManualClock
from channels.layers import InMemoryChannelLayer
from channels.layers.process import losses
from channels.layers.process.losses import Losses, is_drop
from channels.layers.process.owner import OwnerLoop
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer


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
    log = Losses(clock, lambda: counts, [], OwnerLoop(lambda: None))

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


@pytest.mark.parametrize("is_direct", [True, False])
async def test_full_members_are_told_together_and_not_with_each_message(
    monkeypatch: pytest.MonkeyPatch, is_direct: bool
) -> None:
    monkeypatch.setattr(losses, "GATHER_SECONDS", 0.05)
    layer: InMemoryChannelLayer | LoopbackChannelLayer = (
        InMemoryChannelLayer(capacity=1)
        if is_direct
        else LoopbackChannelLayer(LoopbackBroker(), capacity=1)
    )
    layer.adopt_loop()
    told: list[object] = []
    layer.add_gap_listener(told.append)
    channel = await layer.new_channel()
    for group in ("one", "two"):
        await layer.group_add(group, channel)
    await layer.group_send("one", {"type": "x"})
    await asyncio.sleep(0.1)
    assert told == []
    for _ in range(10):
        for group in ("one", "two"):
            await layer.group_send(group, {"type": "x"})
    await asyncio.sleep(0.1)
    assert told == [["one", "two"]]
    await layer.group_send("two", {"type": "x"})
    await asyncio.sleep(0.1)
    assert told == [["one", "two"], ["two"]]
    await layer.close()


async def test_what_was_dropped_last_is_said_when_the_layer_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = InMemoryChannelLayer(capacity=1)
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "x"})
    with pytest.raises(ChannelFull):
        await layer.send(channel, {"type": "x"})
    assert "dropped_full" not in caplog.text
    await layer.close()
    assert "new in its counts: dropped_full 1" in caplog.text
