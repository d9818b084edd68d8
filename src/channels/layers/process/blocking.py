"""The verbs of a layer for code that runs no event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from channels.exceptions import ChannelLayerUnavailable
from channels.fanout.delivery import running_loop
from channels.kit.types import Message
from channels.layers.base import BaseChannelLayer
from channels.layers.outbound import outbound_message
from channels.layers.process.node import Node

T = TypeVar("T")


class BlockingLayer:
    """The verbs for code that runs no event loop: a sync view, a command, a task of Celery.

    Each call goes to the layer's own loop and blocks until it is done there; no loop and no
    connection is made for a call.  They raise what the layer's own verbs raise, and RuntimeError on
    a thread with a running loop, which they would stop.
    """

    def __init__(self, layer: BaseChannelLayer, node: Node) -> None:
        self._layer = layer
        self._node = node

    def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        send = cast(Any, self._layer).send
        self.call(lambda: send(channel, message, delay=delay))

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """The next message.

        Raises:
            TimeoutError: If none came within `timeout` seconds (None: wait for ever).
        """
        return self.run(lambda: self._layer.receive(channel), timeout)

    def new_channel(self, prefix: str = "specific") -> str:
        return self.call(lambda: self._layer.new_channel(prefix))

    def group_add(self, group: str, channel: str) -> None:
        self.call(lambda: self._layer.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        self.call(lambda: self._layer.group_discard(group, channel))

    def group_send(self, group: str, message: Message) -> None:
        self.call(lambda: self._layer.group_send(group, message))

    def broadcast(
        self,
        group: str,
        *,
        text: str | None = None,
        bytes: bytes | None = None,  # noqa: A002 - ASGI's word for it
        json: Any = None,
    ) -> None:
        """As `channels.layers.broadcast`."""
        self.group_send(group, outbound_message(text=text, data=bytes, json=json))

    def backlog(self, channel: str) -> tuple[int, float | None]:
        backlog = cast(Any, self._layer).backlog
        found: tuple[int, float | None] = self.call(lambda: backlog(channel))
        return found

    def flush(self) -> None:
        self.call(self._layer.flush)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`run` for what the layer's own bounds end.

        Raises:
            ChannelLayerUnavailable: If the loop that owns the layer does not answer.
        """
        # Longer than what the verbs themselves may take, so that their own error is seen.
        limit = 3 * self._node.link.patience + 2.0
        try:
            return self.run(work, limit)
        except TimeoutError:
            raise ChannelLayerUnavailable(
                f"The event loop that owns this layer did not answer within {limit} s."
            ) from None

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """What a coroutine gives that calls verbs of the layer, run on the layer's own loop.

        Raises:
            TimeoutError: If it takes more than `timeout` seconds; it is cancelled then.
        """
        if running_loop() is not None:
            raise RuntimeError(
                "layer.sync blocks its thread, and an event loop runs on this one: await the "
                "layer's own method instead."
            )
        return self._node.link.owner.call_sync(work, timeout)
