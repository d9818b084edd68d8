"""Queues that are read here, in whichever way: how much is wanted, and the pull that brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from channels.backends.nats.connection import Message
from channels.backends.nats.jetstream import JetStream
from channels.backends.nats.pulls import Pull
from channels.backends.nats.queues import QueueStreams


class Demand:
    """What is wanted of one queue."""

    __slots__ = ("moving", "pull", "wanted")

    def __init__(self) -> None:
        #: Readers that wait.
        self.wanted = 0
        #: Messages that came and are not theirs yet.
        self.moving = 0
        self.pull: Pull


D = TypeVar("D", bound=Demand)


class Demands(Generic[D]):
    """The demand for queues, and the connection of the moment that serves it."""

    def __init__(self, queues: QueueStreams, spawn: Callable[..., asyncio.Task[Any]]) -> None:
        self._streams = queues
        self._spawn = spawn
        self._stream: JetStream | None = None
        self._queues: dict[str, D] = {}

    def open(self, stream: JetStream) -> None:
        """Connected: serve what is in demand."""
        self._stream = stream
        for queue in list(self._queues.values()):
            queue.pull.open(stream)

    def shut(self) -> None:
        """The connection broke; the demand stays."""
        self._stream = None
        for queue in self._queues.values():
            queue.pull.shut()

    def _add(self, name: str, label: str, queue: D, take: Callable[[Message], None]) -> None:
        """Begin to read a queue; `take` is given each message."""
        queue.pull = Pull(
            label,
            find=lambda stream: self._streams.consumer(stream, name),
            forget=lambda stream: self._streams.forget(stream, name),
            wanted=lambda: queue.wanted - queue.moving,
            take=take,
            spawn=self._spawn,
            on_idle=partial(self._tidy, name),
        )
        self._queues[name] = queue
        if self._stream is not None:
            queue.pull.open(self._stream)

    def _tidy(self, name: str) -> None:
        queue = self._queues[name]
        if not queue.wanted and not queue.moving:
            queue.pull.close()
            del self._queues[name]
