"""The in-memory layer copies what no other layer could carry, and says so."""

from __future__ import annotations

import datetime
import decimal
import logging
import threading

import pytest

from channels.layers import InMemoryChannelLayer
from channels.layers.memory import InProcessSerializer


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InProcessSerializer, "_told", set())


async def test_values_that_only_python_knows_arrive_as_copies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = InMemoryChannelLayer()
    tags = {"a", "b"}
    when = datetime.datetime(2024, 2, 29, tzinfo=datetime.UTC)
    message = {
        "type": "x",
        "when": when,
        "price": decimal.Decimal("1.10"),
        "deep": [{"tags": tags}],
    }
    with caplog.at_level(logging.WARNING, logger="channels.layers"):
        await layer.send("channel", message)
        tags.add("c")
        await layer.send("channel", message)
    first = await layer.receive("channel")
    assert first == {**message, "deep": [{"tags": {"a", "b"}}]}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3, "once for each type"
    assert "datetime.datetime" in told[0]
    await layer.close()


async def test_what_cannot_be_copied_is_refused_where_it_is_sent() -> None:
    layer = InMemoryChannelLayer()
    with pytest.raises(TypeError, match=r"message\['lock'\]"):
        await layer.send("channel", {"type": "x", "lock": threading.Lock()})
    await layer.close()


async def test_other_layers_strictness_can_be_asked_for() -> None:
    layer = InMemoryChannelLayer(serializer_format="msgpack")
    with pytest.raises(TypeError, match=r"message\['tags'\] is a set"):
        await layer.send("channel", {"type": "x", "tags": {1}})
    await layer.close()
