"""A membership of the process's own outlives failures of the layer, and of whoever takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.backends.memory.layer import InMemoryChannelLayer
from channels.exceptions import ChannelLayerUnavailable
from channels.kit.tasks import TaskScope
from channels.layers import group_listener
from channels.layers.group_listener import listen_to_group


class Unsteady(InMemoryChannelLayer):
    """Its first channel cannot be had."""

    failures = 1

    async def new_channel(self, prefix: str = "specific") -> str:
        if self.failures:
            self.failures -= 1
            raise ChannelLayerUnavailable("away")
        return await super().new_channel(prefix)


async def test_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_listener, "RETRY_SECONDS", 0.0)
    layer, joined = Unsteady(), asyncio.Event()
    taken: asyncio.Queue[Any] = asyncio.Queue()
    failed: list[str] = []

    async def take(message: Any) -> None:
        if message["n"] == 1:
            raise ValueError("not this one")
        taken.put_nowait(message["n"])

    scope = TaskScope("test")
    scope.spawn(
        listen_to_group(
            layer, "channels.test", take, lambda error: failed.append(str(error)), joined.set
        )
    )
    async with asyncio.timeout(10):
        await joined.wait()
        for number in range(3):
            await layer.group_send("channels.test", {"n": number})
        assert [await taken.get(), await taken.get()] == [0, 2]
    assert failed == ["away", "not this one"]
    await scope.close()
