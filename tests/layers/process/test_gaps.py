"""Listeners are told of groups whose members in this process were full."""

import asyncio

import pytest

from channels.layers import InMemoryChannelLayer
from channels.layers.process import gaps
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer


@pytest.mark.parametrize("is_direct", [True, False])
async def test_full_members_are_told_together_and_not_with_each_message(
    monkeypatch: pytest.MonkeyPatch, is_direct: bool
) -> None:
    monkeypatch.setattr(gaps, "GATHER_SECONDS", 0.05)
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
