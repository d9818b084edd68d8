"""A site that is written for Channels 1, in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.backends import file
from django.core.cache import cache

from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.legacy.message import Message
from channels.legacy.worker import Worker

IN_MEMORY = "channels.layers.InMemoryChannelLayer"

MakeSite = Callable[..., ChannelLayerWrapper]


@pytest.fixture
def site(settings: Any) -> MakeSite:
    """Configures the default layer with a routing, and gives it."""

    def make(routing: Any = (), backend: str = IN_MEMORY, **config: Any) -> ChannelLayerWrapper:
        entry = {"BACKEND": backend, "CONFIG": config, "ROUTING": routing}
        settings.CHANNEL_LAYERS = {"default": entry}
        return channel_layers["default"]

    return make


@contextmanager
def working(*workers: Worker) -> Iterator[None]:
    """The workers at work, each in a thread of its own; afterwards they have ended."""
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.request_stop()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


class Notes:
    """What consumers tell the test."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def add(self, note: Any) -> None:
        self._queue.put(note)

    def next(self) -> Any:
        return self._queue.get(timeout=30)

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture
def notes() -> Notes:
    return Notes()


#: Where Django's session engines are.
ENGINES = "django.contrib.sessions.backends."


@pytest.fixture
def cached_sessions(settings: Any) -> Iterator[None]:
    settings.SESSION_ENGINE = f"{ENGINES}cache"
    yield
    cache.clear()


@pytest.fixture
def layer(site: MakeSite) -> ChannelLayerWrapper:
    return site()


@pytest.fixture(params=["db", "file", "cache", "cached_db"])
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> str:
    if "db" in request.param:
        request.getfixturevalue("db")
    settings.SESSION_FILE_PATH = str(tmp_path)
    # The class keeps the path that it was first used with.
    if hasattr(file.SessionStore, "_storage_path"):
        del file.SessionStore._storage_path
    settings.SESSION_ENGINE = f"{ENGINES}{request.param}"
    return str(request.param)


def message(layer: Any, channel: str = "websocket.receive", **content: Any) -> Message:
    return Message({"reply_channel": "websocket.send.x!y", "path": "/", **content}, channel, layer)
