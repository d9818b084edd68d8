"""The in-memory layer copies what no other layer could carry, and says so."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import logging
import pickle
import threading
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import msgpack
import pytest
from django.contrib.auth.models import User

from channels.exceptions import MessageTooLarge
from channels.layers import InMemoryChannelLayer
from channels.layers.codec import InProcessSerializer

JOBS = {"jobs": {"dead_letter": "dead", "retry_delay": 0.0}}


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InProcessSerializer, "_told", set())


class Touch:
    """Its pickle makes a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


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


@pytest.mark.parametrize(
    "value",
    [
        datetime.date(2024, 2, 29),
        uuid.UUID(int=5),
        2**80,
        frozenset({1}),
        deque([1, 2]),
        {(1, 2): {uuid.UUID(int=1): (3, 4)}},
        lambda: None,
    ],
    ids=["date", "uuid", "integer", "frozenset", "deque", "keys", "function"],
)
async def test_what_deepcopy_copies_arrives(value: Any) -> None:
    layer = InMemoryChannelLayer()
    await layer.send("channel", {"type": "x", "value": value})
    assert await layer.receive("channel") == {"type": "x", "value": value}
    await layer.close()


async def test_models_and_objects_that_refer_to_themselves_arrive() -> None:
    layer = InMemoryChannelLayer()
    await layer.send("channel", {"type": "x", "user": User(pk=5), "node": Node()})
    got = await layer.receive("channel")
    assert got["user"] == User(pk=5)
    assert got["node"].me is got["node"]
    await layer.close()


async def test_receivers_share_no_object_with_the_sender_or_another_queue() -> None:
    layer = InMemoryChannelLayer()
    names = ["one", "two"]
    for name in names:
        await layer.group_add("room", name)
    message: dict[str, Any] = {"type": "x", "tags": {1}}
    await layer.group_send("room", message)
    message["tags"].add(2)
    first = await layer.receive("one")
    first["tags"].add(3)
    assert await layer.receive("two") == {"type": "x", "tags": {1}}
    await layer.close()


@pytest.mark.parametrize("keys", [None, ["secret"]], ids=["open", "sealed"])
async def test_objects_arrive_by_every_way_through_the_layer(keys: list[str] | None) -> None:
    layer = InMemoryChannelLayer(delivery=JOBS, symmetric_encryption_keys=keys)
    message = {"type": "x", "when": datetime.date(2024, 2, 29)}
    own = await layer.new_channel()
    await layer.group_add("room", own)
    await layer.group_add("room", "worker")
    await layer.group_send("room", message)
    await layer.send(own, message, delay=0.01)
    await layer.send("worker", message, delay=0.01)
    for channel in (own, own, "worker", "worker"):
        assert await asyncio.wait_for(layer.receive(channel), 10) == message
    await layer.send("jobs", message)
    _, lease = await layer.receive_leased("jobs")
    await lease.retry()
    got, lease = await layer.receive_leased("jobs")
    assert got == message
    await lease.reject("no use")
    assert (await layer.receive("dead"))["message"] == message
    await layer.close()


async def test_what_msgpack_does_not_know_stays_the_data_that_a_client_sent(
    tmp_path: Path,
) -> None:
    """A consumer unpacks a client's frame and sends it on: nothing in it may become an object."""
    proof = tmp_path / "proof"
    layer = InMemoryChannelLayer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    for code in range(128):
        frame = msgpack.packb({"text": msgpack.ExtType(code, pickle.dumps(Touch(proof)))})
        text = msgpack.unpackb(frame)["text"]
        message = {"type": "chat.message", "text": text, text: [text]}
        await layer.group_send("room", message)
        await layer.send("worker", message)
        for channel in (own, "worker"):
            got = await layer.receive(channel)
            assert got == message
            assert type(got["text"]) is msgpack.ExtType
        # The same beside an object.
        await layer.send("worker", message | {"when": datetime.date(2024, 2, 29)})
        assert (await layer.receive("worker"))["text"] == text
    assert not proof.exists(), "the pickle was read"
    await layer.close()


async def test_no_octets_stand_for_an_object() -> None:
    copied = InProcessSerializer().dumps({"type": "x", "when": datetime.date(2024, 2, 29)})
    with pytest.raises(msgpack.FormatError):
        InProcessSerializer().loads(bytes(copied))


@pytest.mark.parametrize(
    "value",
    [
        {str(number) for number in range(1000)},
        [datetime.date(2024, 2, 29)] * 100,
        User(username="x" * 4000),
        {"text": "x" * 4000, "when": datetime.date(2024, 2, 29)},
    ],
    ids=["a set", "many objects", "a model", "a text"],
)
async def test_a_copied_message_counts_for_about_what_it_takes(value: Any) -> None:
    layer = InMemoryChannelLayer(max_message_bytes=2000)
    with pytest.raises(MessageTooLarge):
        await layer.send("channel", {"type": "x", "value": value})
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
