"""The signals of a consumer's life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from channels.signals import consumer_finished, consumer_started
from tests.applications import call

EVENT = {"type": "test.event"}


class Stopping(AsyncConsumer):
    async def test_event(self, event: dict[str, Any]) -> None:
        seen.append("handled")
        raise StopConsumer


class Failing(SyncConsumer):
    def test_event(self, event: dict[str, Any]) -> None:
        seen.append("handled")
        raise KeyError("mine")


seen: list[Any] = []


def started(sender: Any, scope: Any, signal: Signal, environ: Any, **more: Any) -> None:
    assert environ == {}, "what receivers of Channels 2 ask for"
    seen.append(("started", sender, scope["type"]))


def finished(sender: Any, scope: Any, signal: Signal, **more: Any) -> None:
    seen.append(("finished", sender, scope["type"]))


def wrong(**more: Any) -> None:
    raise RuntimeError("a receiver's own trouble")


@pytest.fixture(autouse=True)
def listening(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.CHANNEL_LAYERS = {}
    monkeypatch.setattr("channels.db.close_old_connections", lambda **_: None)
    seen.clear()
    for signal, receiver in ((consumer_started, started), (consumer_finished, finished)):
        signal.connect(wrong)
        signal.connect(receiver)
    yield
    for signal, receiver in ((consumer_started, started), (consumer_finished, finished)):
        signal.disconnect(wrong)
        signal.disconnect(receiver)


async def test_a_consumers_life_is_told() -> None:
    await call(Stopping(), {"type": "test"}, EVENT)
    assert seen == [("started", Stopping, "test"), "handled", ("finished", Stopping, "test")]


async def test_a_failed_life_is_told_too() -> None:
    with pytest.raises(KeyError, match="mine"):
        await call(Failing(), {"type": "test"}, EVENT)
    assert seen == [("started", Failing, "test"), "handled", ("finished", Failing, "test")]
