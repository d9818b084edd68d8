"""Taking from queues: at most what readers wait for, each message by one process.

A message is asked for, comes, is acknowledged, and goes to its reader when JetStream has confirmed
that: from then on no other process gets it.  If the connection breaks in between, the same is
acknowledged again over the next one, before `ack_wait` is over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from channels.exceptions import ChannelsError
from channels.layers.nats.connection import Broken, Message
from channels.layers.nats.jetstream import JetStream, nanoseconds

#: Seconds for which a request for messages stands.
_REQUEST_SECONDS: Final = 5.0
#: Part of `ack_wait` in which a message is surely still ours.
_SAFE: Final = 0.8
_RETRY_SECONDS: Final = 0.5


class _Queue:
    __slots__ = (
        "asked",
        "asked_until",
        "is_watched",
        "moving",
        "starting",
        "subject",
        "subscription",
        "wanted",
    )

    def __init__(self) -> None:
        #: Readers that wait.
        self.wanted = 0
        #: Messages that were asked for and have not come.
        self.asked = 0
        #: When the server should have said that nothing has come.
        self.asked_until = 0.0
        self.is_watched = False
        #: Messages that came and are not confirmed.
        self.moving = 0
        self.starting = False
        self.subject = ""
        self.subscription = 0


class Readers:
    """The demand for queues, and the connection of the moment that serves it."""

    def __init__(
        self,
        ack_wait: float,
        capacity_of: Callable[[str], int],
        on_pulled: Callable[[str, bytes], None],
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        self._ack_wait = ack_wait
        self._capacity_of = capacity_of
        self._on_pulled = on_pulled
        self._spawn = spawn
        self._counters = counters
        self._stream: JetStream | None = None
        self._queues: dict[str, _Queue] = {}
        #: (queue, message, when it came) whose acknowledgement was lost.
        self._unsure: list[tuple[str, Message, float]] = []

    def open(self, stream: JetStream) -> None:
        """Connected: serve what is in demand."""
        self._stream = stream
        unsure, self._unsure = self._unsure, []
        for name, message, came in unsure:
            if time.monotonic() - came < _SAFE * self._ack_wait:
                self._acknowledge(name, message, came)
            else:
                self._counters["dropped_unsure"] += 1
                self._queues[name].moving -= 1
        for name in list(self._queues):
            self._adjust(name)

    def shut(self) -> None:
        """The connection broke; the demand stays."""
        self._stream = None
        for queue in self._queues.values():
            queue.asked, queue.subscription = 0, 0

    def demand(self, name: str, count: int) -> None:
        """As `Transport.demand`."""
        queue = self._queues.get(name)
        if queue is None:
            if count <= 0:
                return
            queue = self._queues[name] = _Queue()
        queue.wanted = max(0, count)
        self._adjust(name)

    async def quiesce(self) -> None:
        """Take nothing more, and wait until what came is this process's."""
        stream = self._stream
        if stream is None:
            return
        for queue in self._queues.values():
            queue.wanted = 0
            if queue.subscription:
                stream.connection.unsubscribe(queue.subscription)
        await stream.connection.barrier()
        while any(queue.moving > 0 for queue in self._queues.values()):
            await stream.connection.barrier()

    def _adjust(self, name: str) -> None:
        queue, stream = self._queues[name], self._stream
        missing = queue.wanted - queue.moving - queue.asked
        if stream is None or queue.starting or missing <= 0:
            return
        if not queue.subscription:
            queue.starting = True
            self._spawn(self._start(name, queue, stream), name=f"reader of {name}")
            return
        queue.asked += missing
        body = {"batch": missing, "expires": nanoseconds(_REQUEST_SECONDS)}
        reply = self._reply(queue)
        stream.connection.publish(queue.subject, json.dumps(body).encode(), reply)
        loop = asyncio.get_running_loop()
        queue.asked_until = loop.time() + _REQUEST_SECONDS
        if not queue.is_watched:
            queue.is_watched = True
            loop.call_later(_REQUEST_SECONDS + 1.0, self._doubt, name, queue)

    def _doubt(self, name: str, queue: _Queue) -> None:
        """A server that has lost the stream does not answer at all: begin anew."""
        loop, stream, queue.is_watched = asyncio.get_running_loop(), self._stream, False
        if not queue.asked or stream is None or self._queues.get(name) is not queue:
            return
        if (left := queue.asked_until - loop.time()) > 0:
            queue.is_watched = True
            loop.call_later(left + 1.0, self._doubt, name, queue)
        else:
            self._begin_anew(name, queue, stream)
            self._adjust(name)

    def _begin_anew(self, name: str, queue: _Queue, stream: JetStream) -> None:
        stream.forget_consumer(name)
        stream.connection.unsubscribe(queue.subscription)
        queue.subscription = queue.asked = 0

    def _reply(self, queue: _Queue) -> str:
        return f"_INBOX.{id(self):x}.{queue.subscription}"

    async def _start(self, name: str, queue: _Queue, stream: JetStream) -> None:
        try:
            queue.subject = await asyncio.shield(stream.consumer(name, self._capacity_of(name)))
        except Broken:
            return
        except ChannelsError:
            # JetStream says no; it may say yes later.
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            if stream is self._stream:
                connection = stream.connection
                # The subject bears the subscription's own number, which is the next.
                number = connection.next_number
                connection.subscribe(f"_INBOX.{id(self):x}.{number}", partial(self._take, name))
                queue.subscription = number
        finally:
            queue.starting = False
            if self._stream is not None:
                self._adjust(name)

    def _take(self, name: str, message: Message) -> None:
        queue, stream = self._queues.get(name), self._stream
        if stream is None:
            return
        if message.status:
            if queue is not None:
                self._take_status(name, queue, message)
            return
        if queue is not None:
            queue.asked = max(0, queue.asked - 1)
        if queue is None or queue.wanted - queue.moving <= 0:
            stream.connection.publish(message.reply, b"-NAK")
            return
        queue.moving += 1
        self._acknowledge(name, message, time.monotonic())

    def _take_status(self, name: str, queue: _Queue, message: Message) -> None:
        """A request is over: its time is, or its consumer is gone."""
        pending = message.headers.get("Nats-Pending-Messages", "")
        queue.asked = max(0, queue.asked - int(pending)) if pending.isdigit() else 0
        stream = self._stream
        if stream is not None and message.status != 408:
            self._begin_anew(name, queue, stream)
        if queue.wanted:
            self._adjust(name)
        elif not queue.asked and not queue.moving and not queue.starting:
            if stream is not None and queue.subscription:
                stream.connection.unsubscribe(queue.subscription)
            del self._queues[name]

    def _acknowledge(self, name: str, message: Message, came: float) -> None:
        assert self._stream is not None, "its callers have looked"
        answer = self._stream.connection.request(message.reply, b"+ACK")
        answer.add_done_callback(partial(self._acknowledged, name, message, came))

    def _acknowledged(
        self, name: str, message: Message, came: float, answer: asyncio.Future[Message]
    ) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._unsure.append((name, message, came))
            return
        queue = self._queues[name]
        queue.moving -= 1
        queue.wanted = max(0, queue.wanted - 1)
        self._on_pulled(name, message.data)
