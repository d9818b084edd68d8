"""What the layer asks of JetStream: streams and consumers, made on first use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.layers.nats.connection import NO_RESPONDERS, NatsConnection
from channels.layers.nats.names import Names, encode
from channels.layers.nats.options import NatsOptions

#: JetStream's numbers for what went wrong.
FULL: Final = 10_077
_NAME_IN_USE: Final = 10_058
_BILLION: Final = 1_000_000_000
#: For how long a message that is sent again is known, in seconds.
_DUPLICATE_WINDOW: Final = 120.0
_ATTEMPTS: Final = 3


def nanoseconds(seconds: float) -> int:
    return max(1, round(seconds * _BILLION))


class JetStream:
    """Queues over one connection.

    Args:
        expiry: Seconds that a message lives.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        connection: NatsConnection,
        names: Names,
        options: NatsOptions,
        expiry: Callable[[], float],
        spawn: Callable[..., asyncio.Task[Any]],
    ) -> None:
        self.connection = connection
        self._names = names
        self._options = options
        self._expiry = expiry
        self._spawn = spawn
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._consumers: dict[str, asyncio.Task[str]] = {}

    async def ask(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A call of JetStream's API; an error is in the answer under "error".

        Raises:
            ChannelLayerUnavailable: If the servers have no JetStream.
            Broken: If the connection breaks.
        """
        answer = await self.connection.request(f"$JS.API.{what}", json.dumps(body).encode())
        if answer.status == NO_RESPONDERS:
            raise ChannelLayerUnavailable(
                "NATS does not offer JetStream, which channels that no process owns need: "
                "start the server with -js."
            )
        found: dict[str, Any] = json.loads(answer.data)
        return found

    # Streams.

    def stream(self, capacity: int) -> asyncio.Task[None]:
        """The task that sees to it that the stream for this capacity exists."""
        task = self._streams.get(capacity)
        if task is None or (task.done() and _has_failed(task)):
            task = self._spawn(self._make_stream(capacity), name="stream", on_done=_seen)
            self._streams[capacity] = task
        return task

    async def _make_stream(self, capacity: int) -> None:
        name, expiry = self._names.stream(capacity), self._expiry()
        config = {
            "name": name,
            "subjects": [self._names.stream_subjects(capacity)],
            "retention": "workqueue",
            "storage": "file" if self._options.persistent else "memory",
            "discard": "new",
            "discard_new_per_subject": True,
            "max_msgs_per_subject": capacity,
            "max_age": nanoseconds(expiry),
            "duplicate_window": nanoseconds(min(_DUPLICATE_WINDOW, expiry)),
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "num_replicas": self._options.replicas,
        }
        answer = await self.ask(f"STREAM.CREATE.{name}", config)
        if _code(answer) == _NAME_IN_USE:
            answer = await self.ask(f"STREAM.UPDATE.{name}", config)
        _check(answer)

    async def push(self, channel: str, data: bytes, identity: str, capacity: int) -> None:
        """Append to a queue, once for one identity.

        Raises:
            ChannelFull: If it is full.
        """
        subject = self._names.queue(channel, capacity)
        for _ in range(_ATTEMPTS):
            making = self.stream(capacity)
            if not making.done():
                await asyncio.shield(making)
            answer = await self.connection.request(subject, data, {"Nats-Msg-Id": identity})
            if answer.status != NO_RESPONDERS:
                break
            self._streams.pop(capacity, None)
        else:
            raise ChannelLayerUnavailable(f"JetStream does not take {subject}.")
        found = json.loads(answer.data)
        if _code(found) == FULL:
            raise ChannelFull(f"{channel} holds its capacity of {capacity} unread messages.")
        _check(found)

    # Consumers.

    def consumer(self, channel: str, capacity: int) -> asyncio.Task[str]:
        """The task that sees to it that a queue can be read; gives the subject to ask for more."""
        task = self._consumers.get(channel)
        if task is None or (task.done() and _has_failed(task)):
            task = self._spawn(
                self._make_consumer(channel, capacity), name="consumer", on_done=_seen
            )
            self._consumers[channel] = task
        return task

    def forget_consumer(self, channel: str) -> None:
        """It is gone."""
        self._consumers.pop(channel, None)

    async def _make_consumer(self, channel: str, capacity: int) -> str:
        await asyncio.shield(self.stream(capacity))
        stream, name = self._names.stream(capacity), encode(channel)
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(self._options.ack_wait),
            "deliver_policy": "all",
            "filter_subject": self._names.queue(channel, capacity),
            "max_ack_pending": -1,
            "inactive_threshold": nanoseconds(self._options.queue_life),
            "replay_policy": "instant",
        }
        body = {"stream_name": stream, "config": config}
        try:
            _check(await self.ask(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", body))
        except ChannelLayerUnavailable:
            # Perhaps the stream was deleted; the next attempt makes it again.
            self._streams.pop(capacity, None)
            raise
        return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"

    async def flush(self) -> None:
        """Remove all messages from all queues."""
        found = await self.ask("STREAM.NAMES", {"subject": f"{self._names.prefix}.q.>"})
        for name in found.get("streams") or []:
            _check(await self.ask(f"STREAM.PURGE.{name}", {}))


def _code(answer: Mapping[str, Any]) -> int:
    return int((answer.get("error") or {}).get("err_code", 0))


def _check(answer: Mapping[str, Any]) -> None:
    if error := answer.get("error"):
        raise ChannelLayerUnavailable(f"JetStream refused: {error.get('description', error)}")


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _seen(task: asyncio.Task[Any]) -> None:
    """Whoever waits for it is told its error."""
    if not task.cancelled():
        task.exception()
