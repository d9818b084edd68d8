"""Names and messages: what is refused, and what arrives as it was sent."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from channels.testing.layers.base import ConformanceBase, MakeLayer, receive_all, soon

BAD_NAMES: list[Any] = ["", "a b", "ä", "a!b!c", "name\n", "x" * 100, "a:b", None, b"bytes", 3]


class MessageCases(ConformanceBase):
    """Names and messages."""

    @pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
    async def test_bad_names_are_refused(self, make_layer: MakeLayer, name: Any) -> None:
        layer = await make_layer()
        calls: list[Callable[[], Any]] = [
            lambda: layer.send(name, {"type": "x"}),
            lambda: layer.receive(name),
            lambda: layer.group_add("group", name),
            lambda: layer.group_discard("group", name),
        ]
        if not (self.features.any_group_name and isinstance(name, str) and name):
            calls += [
                lambda: layer.group_add(name, "channel"),
                lambda: layer.group_discard(name, "channel"),
                lambda: layer.group_send(name, {"type": "x"}),
            ]
        for call in calls:
            with pytest.raises(TypeError, match="name must be a valid unicode string"):
                await call()

    async def test_the_longest_names_work(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        group, prefix = "g" * 99, "p" * 30
        channel = await layer.new_channel(prefix)
        await layer.group_add(group, channel)
        await layer.group_send(group, {"type": "x"})
        assert await soon(layer.receive(channel)) == {"type": "x"}

    async def test_odd_but_valid_names_work(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        channel = await layer.new_channel()
        for group in ("..", "a..b", ".a", "a.", "-", "_", "A.b-c_1", "0"):
            await layer.group_add(group, channel)
            await layer.group_send(group, {"type": group})
            assert (await soon(layer.receive(channel)))["type"] == group
            await layer.group_discard(group, channel)

    async def test_new_channels_differ_and_are_valid(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        names = [await layer.new_channel() for layer in (first, second) for _ in range(50)]
        assert len(set(names)) == len(names)
        assert all(first.require_valid_channel_name(name) for name in names)

    async def test_values_arrive_as_they_were_sent(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        message: dict[str, Any] = {
            "type": "all.kinds",
            "none": None,
            "yes": True,
            "no": False,
            "zero": 0,
            "large": 2**63 - 1,
            "small": -(2**63),
            "real": 1.5,
            "text": "grüße \u2603 \U0001f600 \x00",
            "list": [1, "a", [None, {"deep": []}]],
            "dict": {"a": {"b": {"c": 1}}},
            "empty": {},
        }
        await first.send(channel, message)
        back = await soon(second.receive(channel))
        assert back == message
        assert back["yes"] is True

    async def test_bytes_stay_bytes(self, make_layer: MakeLayer) -> None:
        self.need("carries_bytes")
        layer = await make_layer()
        channel = await layer.new_channel()
        message = {"type": "x", "raw": bytes(range(256)), "text": "raw"}
        await layer.send(channel, message)
        assert await soon(layer.receive(channel)) == message

    async def test_tuples_arrive_as_lists(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x", "pair": (1, 2)})
        assert (await soon(layer.receive(channel)))["pair"] == [1, 2]

    async def test_a_megabyte_is_carried(self, make_layer: MakeLayer) -> None:
        first, second = await self.make_two(make_layer)
        channel = await second.new_channel()
        await second.group_add("large", channel)
        message = {"type": "x", "text": "x" * (1024 * 1024)}
        await first.send(channel, message)
        await first.group_send("large", message)
        assert await receive_all(second, channel, 2) == [message, message]

    async def test_what_cannot_be_carried_fails_where_it_is_sent(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("refuses_objects")
        layer = await make_layer()
        channel = await layer.new_channel()
        for culprit in (datetime.datetime.now(tz=datetime.UTC), {1, 2}, object()):
            with pytest.raises(TypeError):
                await layer.send(channel, {"type": "x", "culprit": culprit})
            with pytest.raises(TypeError):
                await layer.group_send("group", {"type": "x", "culprit": culprit})
        await layer.send(channel, {"type": "fine"})
        assert await soon(layer.receive(channel)) == {"type": "fine"}

    async def test_what_the_sender_changes_afterwards_is_not_seen(
        self, make_layer: MakeLayer
    ) -> None:
        layer = await make_layer()
        channel = await layer.new_channel()
        await layer.group_add("group", channel)
        message: dict[str, Any] = {"type": "x", "list": [1]}
        await layer.send(channel, message)
        await layer.group_send("group", message)
        message["list"].append(2)
        message["late"] = True
        assert await receive_all(layer, channel, 2) == [{"type": "x", "list": [1]}] * 2

    async def test_what_one_member_adds_another_does_not_see(self, make_layer: MakeLayer) -> None:
        layer = await make_layer()
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("group", channel)
        await layer.group_send("group", {"type": "x"})
        first = await soon(layer.receive(channels[0]))
        first["mine"] = True
        assert await soon(layer.receive(channels[1])) == {"type": "x"}
