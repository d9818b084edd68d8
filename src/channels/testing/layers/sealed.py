"""What is sealed to its address opens at the end of every road that a message may take."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.testing.layers.base import (
    ConformanceBase,
    MakeLayer,
    nothing_comes,
    receive_all,
    soon,
    until,
)

#: The key that seals, and one from before.
KEYS = ["the key of the site", "its former key"]


class SealedCases(ConformanceBase):
    """`symmetric_encryption_keys`."""

    async def _make(self, make_layer: MakeLayer, **config: Any) -> tuple[Any, Any]:
        """Two processes in the middle of a rotation: the first seals with the former key."""
        self.need("node")
        pytest.importorskip("cryptography")
        if not self.features.spans_processes:
            layer = await make_layer(symmetric_encryption_keys=KEYS, **config)
            return layer, layer
        return (
            await make_layer(symmetric_encryption_keys=KEYS[::-1], **config),
            await make_layer(symmetric_encryption_keys=KEYS, **config),
        )

    async def test_sealed_messages_to_channels_and_groups(self, make_layer: MakeLayer) -> None:
        first, second = await self._make(make_layer)
        channels = [(layer, await layer.new_channel()) for layer in (first, second)]
        for layer, channel in channels:
            await layer.group_add("room", channel)
        for layer in (first, second):
            await layer.group_send("room", {"type": "to all"})
            for _, channel in channels:
                await layer.send(channel, {"type": "to one"})
        for layer, channel in channels:
            got = [message["type"] for message in await receive_all(layer, channel, 4)]
            assert sorted(got) == ["to all", "to all", "to one", "to one"]
        self._check(first, second)

    @pytest.mark.parametrize("channel", ["worker", "un-owned!local", "reply.nobody!x"])
    async def test_sealed_messages_to_queues(self, make_layer: MakeLayer, channel: str) -> None:
        self.need("queues")
        first, second = await self._make(make_layer)
        await first.send(channel, {"type": "one"})
        # What was taken for a reader who has gone goes back, and is read again.
        reader = asyncio.create_task(second.receive(channel))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        got = [] if reader.cancelled() else [reader.result()]
        await first.send(channel, {"type": "two"})
        got += await receive_all(second, channel, 2 - len(got))
        assert got == [{"type": "one"}, {"type": "two"}]
        self._check(first, second)

    async def test_sealed_messages_to_a_queue_in_a_group(self, make_layer: MakeLayer) -> None:
        self.need("queues", "queue_members")
        first, second = await self._make(make_layer)
        await first.group_add("room", "worker")
        await first.group_send("room", {"type": "x"})
        assert await soon(second.receive("worker")) == {"type": "x"}
        self._check(first, second)

    async def test_sealed_control_entries_are_obeyed(self, make_layer: MakeLayer) -> None:
        self.need("queue_members")
        first, second = await self._make(make_layer)
        channel = await second.new_channel()
        await first.group_add("room", channel)
        await first.group_send("room", {"type": "in"})
        assert await soon(second.receive(channel)) == {"type": "in"}
        await first.group_discard("room", channel)
        await first.group_send("room", {"type": "out"})
        await nothing_comes(second, channel)
        await first.group_add("room", channel)
        if self.features.flush:
            await first.flush()
            groups = second.node.local.hub.groups
            await until(lambda: "room" not in groups, "the flush")
        self._check(first, second)

    async def test_sealed_messages_that_are_delayed(self, make_layer: MakeLayer) -> None:
        self.need("delays")
        first, second = await self._make(make_layer)
        own = await second.new_channel()
        for channel in (own, "worker"):
            await first.send(channel, {"type": "late"}, delay=0.2)
        for channel in (own, "worker"):
            assert await soon(second.receive(channel)) == {"type": "late"}
        self._check(first, second)

    async def test_sealed_messages_on_lease(self, make_layer: MakeLayer) -> None:
        self.need("leases")
        jobs = {"max_attempts": 2, "retry_delay": 0.0, "dead_letter": "dead"}
        first, second = await self._make(make_layer, delivery={"jobs": jobs})
        await first.send("jobs", {"type": "job"})
        for attempt, reader in enumerate((second, first), start=1):
            message, lease = await soon(reader.receive_leased("jobs"))
            assert (message, lease.attempts) == ({"type": "job"}, attempt)
            await lease.retry(delay=0.1 if attempt == 1 else 0.0)
        letter = await soon(second.receive("dead"))
        assert (letter["type"], letter["message"]) == ("dead.letter", {"type": "job"})
        self._check(first, second)

    def _check(self, *layers: Any) -> None:
        for layer in layers:
            assert layer.statistics().get("dropped_unauthentic", 0) == 0
