"""Groups' members that no process owns: a table in JetStream, of which each process has a copy.

Who adds or removes one stores that, and JetStream passes it on to all processes (`republish`).  It
does so before it answers, and a connection's messages keep their order: a process that publishes
to a group after that answer has heard of the change when the server confirms what it published.
With several servers the news may be a moment later, as is that of who has joined a group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from channels.backends.nats.connection import Message
from channels.backends.nats.jetstream import JetStream, nanoseconds
from channels.backends.nats.names import Names, decode, encode
from channels.backends.nats.queues import QueueStreams
from channels.exceptions import ChannelFull
from channels.layers.envelope import Envelope

#: In place of a group: all memberships are over.
_FLUSHED: Final = "=flushed"


class QueueMembers:
    """The table, as this process knows it.

    Args:
        group_expiry: Seconds for which a membership stands, at most.
        bound: How many there may be.
    """

    def __init__(
        self,
        names: Names,
        queues: QueueStreams,
        group_expiry: Callable[[], float],
        bound: int,
        on_over_capacity: Callable[[str, int, int], None],
    ) -> None:
        self._names = names
        self._streams = queues
        self._group_expiry = group_expiry
        self._bound = bound
        self._on_over_capacity = on_over_capacity
        #: Group -> channel -> until when, in seconds since 1970.
        self._groups: dict[str, dict[str, float]] = {}
        self._size = 0

    @property
    def _stream(self) -> str:
        return f"{self._names.prefix}_M"

    async def open(self, stream: JetStream) -> None:
        """Connected: read the table, and hear of what changes."""
        self._clear()
        stream.connection.subscribe(f"{self._names.prefix}.a.>", self._take)
        await stream.connection.barrier()
        found = await stream.state(self._stream)
        if found is not None and found["state"]["messages"]:
            last = int(found["state"]["last_seq"])
            # What was heard meanwhile is younger, but is read once more, in order.
            await stream.read(self._stream, 1, last, self._take)

    def _take(self, message: Message) -> None:
        """A change: the subject says of what, the message until when, or nothing."""
        words = message.subject.split(".")
        if message.status or len(words) < 4:
            return
        if words[2] == _FLUSHED:
            self._clear()
            return
        group, channel = decode(words[2]), decode(words[3])
        self._remove(group, channel)
        if message.data:
            self._groups.setdefault(group, {})[channel] = float(message.data)
            self._size += 1
            if self._size > self._bound:
                # JetStream has dropped those whose time is over; here they are still noted.
                for each in list(self._groups):
                    self._current(each)

    def _remove(self, group: str, channel: str) -> None:
        members = self._groups.get(group, {})
        if members.pop(channel, None) is not None:
            self._size -= 1
            if not members:
                del self._groups[group]

    def _current(self, group: str) -> list[str]:
        """A group's members whose time is not over."""
        now = time.time()
        for channel, until in list(self._groups.get(group, {}).items()):
            if until <= now:
                self._remove(group, channel)
        return list(self._groups.get(group, ()))

    def _clear(self) -> None:
        self._groups.clear()
        self._size = 0

    async def add(self, stream: JetStream, group: str, channel: str, expires: float) -> None:
        """As `Transport.add_queue`."""
        await self._store(stream, group, channel, f"{expires:.3f}".encode())

    async def discard(self, stream: JetStream, group: str, channel: str) -> None:
        """As `Transport.discard_queue`."""
        await stream.connection.barrier()
        if channel in self._groups.get(group, {}):
            await self._store(stream, group, channel, b"")

    async def _store(self, stream: JetStream, group: str, channel: str, data: bytes) -> None:
        prefix = self._names.prefix
        config: dict[str, Any] = {
            "name": self._stream,
            "subjects": [f"{prefix}.m.>"],
            "discard": "new",
            "max_msgs": self._bound,
            "max_msgs_per_subject": 1,
            "max_age": nanoseconds(self._group_expiry()),
            "republish": {"src": f"{prefix}.m.>", "dest": f"{prefix}.a.>"},
        }
        subject = f"{prefix}.m.{encode(group)}.{encode(channel)}"
        full = f"{self._bound} channels are members of groups already (max_queue_members)."
        await stream.store(config, subject, data, {}, full, shrinks=False)

    async def flush(self, stream: JetStream) -> None:
        """Forget all, in all processes."""
        await stream.purge(self._stream)
        stream.connection.publish(f"{self._names.prefix}.a.{_FLUSHED}.all", b"")

    async def publish(self, stream: JetStream, envelope: Envelope) -> None:
        """Give an envelope to the members of its group."""
        channels = self._current(envelope.name)
        if not channels:
            return
        # One stream has many queues, and what was stored for one must not count for another.
        identity = f"{envelope.sender.hex()}.{envelope.seq}"
        results = await asyncio.gather(
            *(
                self._streams.push(stream, each, envelope.encoded, f"{identity}.{encode(each)}")
                for each in channels
            ),
            return_exceptions=True,
        )
        full = sum(isinstance(result, ChannelFull) for result in results)
        if full:
            self._on_over_capacity(envelope.name, full, len(channels))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ChannelFull):
                raise result
