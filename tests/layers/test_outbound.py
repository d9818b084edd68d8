"""broadcast: one message to all sockets of a group."""

import asyncio
from typing import Any

import pytest
from django.test import override_settings

from channels.exceptions import InvalidChannelLayerError
from channels.layers import InMemoryChannelLayer, broadcast, get_channel_layer


@pytest.mark.parametrize(
    ("given", "event"),
    [
        ({"text": "hello"}, {"type": "websocket.send", "text": "hello"}),
        ({"text": ""}, {"type": "websocket.send", "text": ""}),
        ({"bytes": b"\x00"}, {"type": "websocket.send", "bytes": b"\x00"}),
        ({"json": {"n": ["ü"]}}, {"type": "websocket.send", "text": '{"n":["ü"]}'}),
        ({"json": 0}, {"type": "websocket.send", "text": "0"}),
    ],
)
async def test_the_event(given: dict[str, Any], event: dict[str, Any]) -> None:
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await broadcast("room", layer=layer, **given)
    assert await layer.receive(channel) == event
    await asyncio.to_thread(lambda: layer.sync.broadcast("room", **given))
    assert await layer.receive(channel) == event


@pytest.mark.parametrize("given", [{}, {"text": "a", "json": 1}, {"text": b"bytes"}])
async def test_exactly_one_of_the_right_kind(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        await broadcast("room", layer=InMemoryChannelLayer(), **given)


async def test_by_alias() -> None:
    memory = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    with override_settings(CHANNEL_LAYERS={"default": memory, "second": memory}):
        layer = get_channel_layer("second")
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await broadcast("room", text="x", layer="second")
        assert (await layer.receive(channel))["text"] == "x"
        with pytest.raises(InvalidChannelLayerError, match="'third'"):
            await broadcast("room", text="x", layer="third")
