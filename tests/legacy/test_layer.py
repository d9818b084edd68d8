"""ASGI 1's verbs over a layer of today."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels.layers import BaseChannelLayer, InMemoryChannelLayer, LocalChannelLayer
from channels.legacy.layer import Asgi1Layer


@pytest.fixture(params=["memory", "local"])
def layer(request: pytest.FixtureRequest, short_path: Path) -> Any:
    inner: Any
    if request.param == "memory":
        inner = InMemoryChannelLayer(capacity=3)
    else:
        inner = LocalChannelLayer(directory=short_path, capacity=3)
    yield Asgi1Layer(inner)
    async_to_sync(inner.close)()


def test_messages_come_in_order_from_the_channels_that_are_asked_for(layer: Asgi1Layer) -> None:
    for n in range(3):
        layer.send("jobs", {"n": n})
    layer.send("mail", {"n": 3})
    assert [layer.receive(["jobs"], block=True) for _ in range(3)] == [
        ("jobs", {"n": n}) for n in range(3)
    ]
    assert layer.receive_many(["mail", "jobs"], block=True) == ("mail", {"n": 3})
    assert layer.receive(["mail", "jobs"]) == (None, None)
    assert layer.receive([]) == (None, None)


def test_one_message_is_taken_at_a_time(layer: Asgi1Layer) -> None:
    """What waits in other channels stays there for other workers."""
    names = ["a", "b", "c", "d"]
    for name in names:
        layer.send(name, {"name": name})
    found = [layer.receive(names, block=True) for _ in names]
    assert sorted(str(name) for name, _ in found) == names
    assert all(message == {"name": name} for name, message in found)


def test_a_blocking_read_is_woken(layer: Asgi1Layer) -> None:
    found: list[Any] = []
    reader = threading.Thread(
        target=lambda: found.append(layer.receive(["a", "b"], block=True, timeout=30))
    )
    reader.start()
    layer.send("b", {"n": 1})
    reader.join(30)
    assert found == [("b", {"n": 1})]


def test_a_blocking_read_ends_by_its_time(layer: Asgi1Layer) -> None:
    assert layer.receive(["jobs"], block=True, timeout=0.01) == (None, None)


def test_a_channel_of_one_process(layer: Asgi1Layer) -> None:
    first, second = layer.new_channel("http.response!"), layer.new_channel("http.response")
    assert first != second
    for name in (first, second):
        assert name.startswith("http.response.")
        assert "!" in name
        layer.send(name, {"status": 200})
        assert layer.receive([name], block=True) == (name, {"status": 200})


def test_a_channel_that_anybody_may_read(layer: Asgi1Layer) -> None:
    name = layer.new_channel("http.request.body?")
    assert name.startswith("http.request.body.")
    assert "!" not in name
    layer.send(name, {"content": b"x"})
    assert layer.receive([name], block=True) == (name, {"content": b"x"})


def test_a_full_channel_refuses(layer: Asgi1Layer) -> None:
    for n in range(3):
        layer.send("jobs", {"n": n})
    with pytest.raises(layer.ChannelFull):
        layer.send("jobs", {"n": 3})


def test_a_message_that_is_too_large_is_refused(layer: Asgi1Layer) -> None:
    with pytest.raises(layer.MessageTooLarge):
        layer.send("jobs", {"content": b"x" * (8 << 20)})


def test_groups_and_flush(layer: Asgi1Layer) -> None:
    member = layer.new_channel("websocket.send!")
    layer.group_add("all", member)
    layer.send_group("all", {"text": "hello"})
    assert layer.receive([member], block=True) == (member, {"text": "hello"})
    layer.group_discard("all", member)
    layer.send_group("all", {"text": "again"})
    assert layer.receive([member]) == (None, None)
    layer.send("jobs", {"n": 1})
    layer.flush()
    assert layer.receive(["jobs"]) == (None, None)


@pytest.mark.parametrize("bad", ["no spaces", "question?mark", ""])
def test_bad_names_are_refused(bad: str, layer: Asgi1Layer) -> None:
    for call in (lambda: layer.send(bad, {}), lambda: layer.receive([bad])):
        with pytest.raises(TypeError, match="Channel name must be"):
            call()
    with pytest.raises(TypeError, match="Group name must be"):
        layer.send_group(bad, {})


def test_what_is_no_dict_is_refused(layer: Asgi1Layer) -> None:
    with pytest.raises(TypeError, match="found list"):
        layer.send("jobs", [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="found str"):
        layer.send_group("all", "text")  # type: ignore[arg-type]


async def test_no_loop_is_blocked(layer: Asgi1Layer) -> None:
    with pytest.raises(RuntimeError, match="blocks its thread"):
        layer.receive(["jobs"])


def test_another_packages_layer_is_driven_by_asgiref() -> None:
    class Foreign(BaseChannelLayer):
        def __init__(self) -> None:
            super().__init__()
            self.inner = InMemoryChannelLayer()

        async def send(self, channel: str, message: dict[str, Any]) -> None:
            await self.inner.send(channel, message)

        async def receive(self, channel: str) -> dict[str, Any]:
            return await self.inner.receive(channel)

    layer = Asgi1Layer(Foreign())
    assert not layer.is_in_process
    layer.send("jobs", {"n": 1})
    assert layer.receive(["jobs", "mail"]) == ("jobs", {"n": 1})
