"""Sends that wait for a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase

from channels.exceptions import InvalidChannelLayerError
from channels.layers import BaseChannelLayer, InMemoryChannelLayer
from channels.layers.registry import channel_layers
from channels.transactions import (
    atomic_group_send,
    atomic_send,
    group_send_on_commit,
    send_on_commit,
)
from tests.layers.databases import alias

__all__ = ["alias"]


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer()
    former = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", former)


@pytest.fixture
def file_alias(alias: Callable[..., str], tmp_path: Path) -> Callable[[str], str]:
    return lambda name: alias(
        name, ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / f"{name}.sqlite3")
    )


def read(layer: InMemoryChannelLayer, channel: str) -> Any:
    return layer.sync.receive(channel, timeout=5)


def is_silent(layer: InMemoryChannelLayer, channel: str) -> bool:
    try:
        layer.sync.receive(channel, timeout=0.02)
    except TimeoutError:
        return True
    return False


SENDS = [send_on_commit, atomic_send]
GROUP_SENDS = [group_send_on_commit, atomic_group_send]


@pytest.mark.parametrize("send", SENDS)
def test_a_send_waits_for_the_commit(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str], send: Any
) -> None:
    one = file_alias("one")
    with transaction.atomic(using=one):
        send("work", {"type": "x"}, using=one)
        assert is_silent(layer, "work")
    assert read(layer, "work") == {"type": "x"}


@pytest.mark.parametrize("send", SENDS)
def test_a_delay_counts_from_the_commit(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str], send: Any
) -> None:
    one = file_alias("one")
    with transaction.atomic(using=one):
        send("work", {"type": "late"}, using=one, delay=0.2)
        send("work", {"type": "now"}, using=one)
        committed = time.monotonic()
    assert [read(layer, "work")["type"] for _ in range(2)] == ["now", "late"]
    assert time.monotonic() - committed >= 0.15


@pytest.mark.parametrize("group_send", GROUP_SENDS)
def test_what_is_rolled_back_is_not_sent(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str], group_send: Any
) -> None:
    one = file_alias("one")
    channel = layer.sync.new_channel()
    layer.sync.group_add("room", channel)
    with transaction.atomic(using=one):
        group_send("room", {"type": "lost"}, using=one)
        transaction.set_rollback(True, using=one)
    with transaction.atomic(using=one):
        with transaction.atomic(using=one):
            group_send("room", {"type": "lost with its savepoint"}, using=one)
            transaction.set_rollback(True, using=one)
        group_send("room", {"type": "kept"}, using=one)
    assert read(layer, channel) == {"type": "kept"}
    assert is_silent(layer, channel)


def test_each_database_has_its_own_commits(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str]
) -> None:
    one, two = file_alias("one"), file_alias("two")
    with transaction.atomic(using=one):
        with transaction.atomic(using=two):
            send_on_commit("work", {"type": "one"}, using=one)
            send_on_commit("work", {"type": "two"}, using=two)
        assert read(layer, "work") == {"type": "two"}
        assert is_silent(layer, "work")
    assert read(layer, "work") == {"type": "one"}


def test_outside_a_transaction_it_is_sent_at_once(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str]
) -> None:
    send_on_commit("work", {"type": "x"}, using=file_alias("one"))
    assert read(layer, "work") == {"type": "x"}


def test_the_message_is_taken_as_it_was(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str]
) -> None:
    one = file_alias("one")
    message: dict[str, Any] = {"type": "x", "list": [1]}
    with transaction.atomic(using=one):
        send_on_commit("work", message, using=one)
        message["list"].append(2)
    assert read(layer, "work") == {"type": "x", "list": [1]}


def test_a_failing_send_is_logged_and_holds_up_nothing(
    layer: InMemoryChannelLayer,
    file_alias: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = file_alias("one")
    layer.capacity = 1
    ran = []
    with transaction.atomic(using=one):
        for _ in range(2):
            send_on_commit("work", {"type": "x"}, using=one)
        transaction.on_commit(lambda: ran.append(True), using=one)
    assert ran == [True]
    assert "ChannelFull" in caplog.text
    with pytest.raises(Exception, match="capacity"), transaction.atomic(using=one):
        send_on_commit("work", {"type": "x"}, using=one, robust=False)


def test_mistakes_are_told_at_once(
    layer: InMemoryChannelLayer, file_alias: Callable[[str], str]
) -> None:
    one = file_alias("one")
    with transaction.atomic(using=one):
        with pytest.raises(TypeError, match="Channel name"):
            send_on_commit("a b", {"type": "x"}, using=one)
        with pytest.raises(TypeError, match="Group name"):
            group_send_on_commit("a b", {"type": "x"}, using=one)
        with pytest.raises(InvalidChannelLayerError, match="'other'"):
            send_on_commit("work", {"type": "x"}, using=one, layer="other")


def test_a_layer_with_nothing_but_coroutines(file_alias: Callable[[str], str]) -> None:
    sent = []

    class Foreign(BaseChannelLayer):
        async def send(self, channel: str, message: Any) -> None:
            sent.append((channel, message))

    one = file_alias("one")
    with transaction.atomic(using=one):
        send_on_commit("work", {"type": "x"}, using=one, layer=Foreign())
        assert sent == []
    assert sent == [("work", {"type": "x"})]


class TestInTestCase(TestCase):
    """Django's TestCase never commits; it captures what waits for it."""

    def test_captured(self) -> None:
        layer = InMemoryChannelLayer()
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            send_on_commit("work", {"type": "x"}, layer=layer)
            atomic_send("work", {"type": "y"}, layer=layer)
        assert len(callbacks) == 2
        assert [read(layer, "work")["type"] for _ in range(2)] == ["x", "y"]

    def test_not_captured(self) -> None:
        layer = InMemoryChannelLayer()
        send_on_commit("work", {"type": "x"}, layer=layer)
        assert is_silent(layer, "work")
