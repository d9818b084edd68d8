"""A layer's verbs for code that runs no event loop: a sync view, a command, a task of Celery.

Each call goes to the layer's own loop and blocks until it is done there; no loop and no connection
is made for a call.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from channels.exceptions import ChannelLayerUnavailable
from channels.fanout.hub import running_loop
from channels.kit.types import Message
from channels.layers.options import LayerOptions
from channels.layers.outbound import outbound_message
from channels.layers.process.node import Node

T = TypeVar("T")


class _Layer(Protocol):
    node: Node
    options: LayerOptions

    async def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None: ...
    async def receive(self, channel: str) -> Message: ...
    async def new_channel(self, prefix: str = "specific") -> str: ...
    async def group_add(self, group: str, channel: str) -> None: ...
    async def group_discard(self, group: str, channel: str) -> None: ...
    async def group_send(self, group: str, message: Message) -> None: ...
    async def flush(self) -> None: ...


class BlockingLayer:
    """The verbs as plain functions; any thread, unless an event loop runs on it.

    They raise what the layer's own verbs raise, and RuntimeError on a thread with a running loop,
    which they would stop.
    """

    def __init__(self, layer: _Layer) -> None:
        self._layer = layer

    def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        self.call(lambda: self._layer.send(channel, message, delay=delay))

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

    def flush(self) -> None:
        self.call(self._layer.flush)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`run` for what the layer's own bounds end.

        Raises:
            ChannelLayerUnavailable: If the loop that owns the layer does not answer.
        """
        # Longer than what the verbs themselves may take, so that their own error is seen.
        limit = 3 * self._layer.options.send_timeout + 5.0
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
        return self._layer.node.link.owner.call_sync(work, timeout)
