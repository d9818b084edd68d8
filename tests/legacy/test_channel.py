"""Channels and groups of Channels 1, and what a consumer sends while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from channels import Channel, Group
from channels.exceptions import ChannelFull
from channels.legacy import pending
from channels.legacy.message import pending_message_store
from tests.legacy.conftest import MakeSite


def test_a_message_goes_to_a_channel(site: MakeSite) -> None:
    layer = site()
    channel = Channel("jobs")
    channel.send({"n": 1, "raw": b"\x00", "more": [None, "x"]})
    assert layer.receive(["other", "jobs"]) == (
        "jobs",
        {"n": 1, "raw": b"\x00", "more": [None, "x"]},
    )
    assert layer.receive(["other", "jobs"]) == (None, None)
    assert str(channel) == channel.name == "jobs"


def test_a_name_may_be_bytes(site: MakeSite) -> None:
    site()
    assert Channel(b"jobs").name == "jobs"
    assert Group(b"all").name == "all"
    with pytest.raises(TypeError, match="found int"):
        Channel(7)


def test_a_group_reaches_its_members(site: MakeSite) -> None:
    layer = site()
    first, second = (layer.new_channel("websocket.send!") for _ in range(2))
    Group("all").add(first)
    Group("all").add(Channel(second))
    Group("all").add("archive")
    Group("all").send({"text": "hello"})
    names = [first, second, "archive"]
    assert sorted(layer.receive([name])[0] for name in names) == sorted(names)
    Group("all").discard(Channel(second))
    Group("all").discard(first)
    Group("all").send({"text": "again"})
    assert layer.receive([first, second]) == (None, None)
    assert layer.receive(["archive"]) == ("archive", {"text": "again"})


@pytest.mark.parametrize("content", ["text", None, [("text", "x")]])
def test_what_is_no_dict_is_refused(content: Any, site: MakeSite) -> None:
    site()
    with pytest.raises(TypeError, match="must be a dict"):
        Channel("jobs").send(content)
    with pytest.raises(ValueError, match="must be a dict"):
        Group("all").send(content)


def test_a_layer_can_be_given(site: MakeSite) -> None:
    layer = site()
    assert Channel("jobs", channel_layer=layer).channel_layer is layer
    assert Channel("jobs").channel_layer is layer
    with pytest.raises(KeyError):
        Channel("jobs", alias="nowhere")


def test_what_a_consumer_sends_leaves_when_it_has_returned(site: MakeSite) -> None:
    layer = site()
    with pending_message_store.collecting():
        Channel("jobs").send({"n": 1})
        Channel("jobs").send({"n": 0}, immediately=True)
        Channel("jobs").send({"n": 2})
        assert layer.receive(["jobs"]) == ("jobs", {"n": 0})
        assert layer.receive(["jobs"]) == (None, None)
    assert [layer.receive(["jobs"])[1] for _ in range(2)] == [{"n": 1}, {"n": 2}]
    Channel("jobs").send({"n": 3})
    assert layer.receive(["jobs"])[1] == {"n": 3}


def test_it_leaves_after_an_error_too(site: MakeSite) -> None:
    layer = site()

    def consumer() -> None:
        with pending_message_store.collecting():
            Group("all").add("jobs")
            Group("all").send({"n": 1})
            raise LookupError

    with pytest.raises(LookupError):
        consumer()
    assert layer.receive(["jobs"])[1] == {"n": 1}


def test_a_full_channel_is_waited_for_and_then_named(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "FULL_SECONDS", 0.05)
    monkeypatch.setattr(pending, "RETRY_SECONDS", 0.01)
    layer = site(capacity=1)
    Channel("jobs").send({})
    with pytest.raises(ChannelFull):
        Channel("jobs").send({})

    def consumer() -> None:
        with pending_message_store.collecting():
            Channel("jobs").send({"n": "lost"})
            Channel("other").send({"n": 2})

    with pytest.raises(RuntimeError, match=r"1 messages of a consumer were dropped.*'jobs'"):
        consumer()
    assert layer.receive(["other"])[1] == {"n": 2}


def test_a_full_channel_that_is_read_loses_nothing(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = site(capacity=1)
    Channel("jobs").send({"n": 1})
    read: list[Any] = []
    monkeypatch.setattr(
        "channels.legacy.pending.time.sleep", lambda _: read.append(layer.receive(["jobs"])[1])
    )
    with pending_message_store.collecting():
        Channel("jobs").send({"n": 2})
    assert [*read, layer.receive(["jobs"])[1]] == [{"n": 1}, {"n": 2}]
