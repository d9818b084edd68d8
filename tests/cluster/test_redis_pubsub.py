"""What only the publish-and-subscribe layer does: it calls hooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.sites import Site
from tests.cluster.traffic import until


@pytest.mark.parametrize("site", ["redis-pubsub"], indirect=True)
async def test_hooks_are_called(site: Site, make_layer: Callable[..., Any]) -> None:
    called: list[str] = []

    async def back() -> None:
        called.append("back")

    layer = make_layer(on_disconnect="redis.disconnect", on_reconnect=back, channel_layer=None)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    assert called == [], "the first connection is none that is back"
    await asyncio.to_thread(site.server.kill)
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "redis.disconnect"}
    await asyncio.to_thread(site.server.start)
    await until(lambda: called == ["back"], "the hook")
    await layer.group_send("room", {"type": "again"})
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "again"}
