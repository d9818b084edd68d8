"""Groups and inboxes of processes that a stream keeps for a while: `reliable`.

All that is sent to groups and processes goes into one stream, which passes it on (`republish`) to
whoever hears it, each message with its number in the stream.  A process that is connected hears
what it would hear without the stream.  One that was cut off hears again first, keeps what comes
aside, and reads from the stream what is between the last number that it knows and what it hears.

What it knows is kept young by marks: messages to itself.  If one does not come back, the stream has
gone, and the connection is given up to begin anew.  Each message also has the number of the one
before it in the same group: so a message that got lost between servers is missed, and read.

It has missed something for good if the stream begins after the last number that it knows, or is
another stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from channels.backends.nats.connection import NO_RESPONDERS, Broken, Message
from channels.backends.nats.jetstream import JetStream, check, nanoseconds, sequence_of
from channels.backends.nats.names import Names
from channels.backends.nats.options import NatsOptions
from channels.exceptions import ChannelLayerUnavailable, ChannelsError, TransportDown
from channels.layers.envelope import Envelope

#: Marks without an answer after which the stream has gone.
_LOST_MARKS: Final = 3
#: Marks that the stream keeps messages for beyond the window: what is known is as old as one.
_SPARE_MARKS: Final = 2


class WindowMail:
    """Mail that waits for whoever is away for a moment.

    Args:
        on_frame: Given what comes.
        on_gap: Told that something is missing.
    """

    def __init__(
        self,
        names: Names,
        node: str,
        options: NatsOptions,
        spawn: Callable[..., asyncio.Task[Any]],
        on_frame: Callable[[bytes], None],
        on_gap: Callable[[Sequence[str] | None], None],
    ) -> None:
        self._names = names
        self._options = options
        self._spawn = spawn
        self._on_frame = on_frame
        self._on_gap = on_gap
        self._inbox = names.node(node)
        self._stream: JetStream
        self._timer: asyncio.TimerHandle | None = None
        #: When the stream was made, and the last number of which all before it has come.
        self._epoch = ""
        self._known = 0
        #: Path of what is heard here -> the last number known of it.
        self._heard: dict[str, int] = {}
        self._subscriptions: dict[str, int] = {}
        #: Paths of which it is not known yet what came before.
        self._new: set[str] = set()
        #: What comes while something is read that was before it; None: nothing is.
        self._aside: list[Message] | None = None
        self._marks = 0

    @property
    def _name(self) -> str:
        return f"{self._names.prefix}_R"

    def _config(self) -> Mapping[str, Any]:
        kept = self._options.window + _SPARE_MARKS * self._options.ping_interval
        return {
            "name": self._name,
            "subjects": [self._names.kept(">")],
            # In memory NATS 2.9 takes 170 us of its CPU for a message that is passed on once 9,000
            # are kept, and more with more; in files 13, as 2.15 does in both.
            "storage": "file",
            "max_age": nanoseconds(kept),
            "max_msgs": self._options.window_messages,
            "max_bytes": self._options.window_bytes,
            "republish": {"src": self._names.kept(">"), "dest": self._names.live(">")},
        }

    async def open(self, stream: JetStream) -> bool:
        self._stream, self._marks = stream, 0
        await stream.have_stream(self._config())
        self._aside = []
        self._subscriptions.clear()
        for path in [self._inbox, *self._heard]:
            self._subscribe(path)
        await stream.connection.barrier()
        found = await self._look(stream)
        first, last = int(found["state"]["first_seq"]), int(found["state"]["last_seq"])
        kept = self._epoch == found["created"] and first - 1 <= self._known <= last
        if kept:
            await self._catch_up(stream, self._known + 1, last)
        else:
            self._begin(found["created"], last)
        self._release()
        self._settle([self._inbox], last)
        self._mark()
        return kept

    async def _look(self, stream: JetStream) -> dict[str, Any]:
        found = await stream.state(self._name)
        if found is None:
            stream.forget(self._name)
            raise Broken(f"the stream {self._name} has gone")
        return found

    def _begin(self, epoch: str, last: int) -> None:
        """Nothing that was known holds: the node joins its groups again."""
        self._epoch, self._known = epoch, last
        for path in list(self._heard):
            if path != self._inbox:
                self._stream.connection.unsubscribe(self._subscriptions.pop(path))
        self._heard, self._new = {self._inbox: 0}, {self._inbox}

    def shut(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._aside = None
        self._subscriptions.clear()

    def _subscribe(self, path: str) -> None:
        if path not in self._subscriptions:
            number = self._stream.connection.subscribe(self._names.live(path), self._take)
            self._subscriptions[path] = number

    # Hearing.

    def _take(self, message: Message) -> None:
        """What was passed on."""
        if self._aside is None:
            self._hear(message)
        elif len(self._aside) < self._options.window_messages:
            self._aside.append(message)
        else:
            self._stream.connection.fail(Broken("more came than is kept aside"))

    def _hear(self, message: Message) -> None:
        path = message.subject.removeprefix(self._names.live(""))
        number = int(message.headers.get("Nats-Sequence", 0))
        before = int(message.headers.get("Nats-Last-Sequence", 0))
        known = self._heard.get(path)
        if known is None:
            # On its way when it was left.
            return
        if before > known and path not in self._new:
            self._aside = [message]
            self._spawn(self._repair(self._stream, known + 1, number), name="what was missed")
            return
        self._deliver(path, number, message.data)

    def _deliver(self, path: str, number: int, data: bytes) -> None:
        self._known = max(self._known, number)
        self._heard[path] = max(self._heard[path], number)
        if data:
            self._on_frame(data)
        elif path == self._inbox:
            self._marks = 0

    def _read(self, message: Message) -> None:
        """What was read from the stream."""
        path = message.subject.removeprefix(self._names.kept(""))
        number = sequence_of(message)
        if number > self._heard.get(path, number):
            self._deliver(path, number, message.data)

    async def _catch_up(self, stream: JetStream, start: int, last: int) -> None:
        if start <= last:
            await stream.read(self._name, start, last, self._read)
            self._known = max(self._known, last)

    def _release(self) -> None:
        """What was kept aside comes after what was read."""
        aside, self._aside = self._aside or [], None
        for index, message in enumerate(aside):
            number = int(message.headers.get("Nats-Sequence", 0))
            path = message.subject.removeprefix(self._names.live(""))
            if number <= self._heard.get(path, 0):
                continue
            self._hear(message)
            if self._aside is not None:
                # It misses something itself.
                self._aside += aside[index + 1 :]
                return

    async def _repair(self, stream: JetStream, start: int, last: int) -> None:
        """A message was missed on an open connection."""
        try:
            found = await self._look(stream)
            if int(found["state"]["first_seq"]) > start:
                self._on_gap(None)
            await self._catch_up(stream, start, last)
        except (Broken, ChannelsError) as error:
            stream.connection.fail(Broken(f"what was missed cannot be read: {error}"))
            return
        if stream is self._stream and self._aside is not None:
            self._release()

    def _mark(self) -> None:
        connection = self._stream.connection
        if self._marks >= _LOST_MARKS:
            self._stream.forget(self._name)
            connection.fail(Broken(f"the stream {self._name} does not pass on what is sent"))
            return
        self._marks += 1
        connection.publish(self._names.kept(self._inbox), b"")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._options.ping_interval, self._mark)

    # The operations.

    async def join(self, groups: Sequence[str]) -> None:
        stream = self._stream
        paths = [self._names.group(group) for group in groups]
        for path in paths:
            self._subscribe(path)
            if path not in self._heard:
                self._heard[path] = 0
                self._new.add(path)
        await stream.connection.barrier()
        # What is sent from now on must come; this is the number that it comes after.
        self._settle(paths, int((await self._look(stream))["state"]["last_seq"]))

    def _settle(self, paths: Sequence[str], last: int) -> None:
        """What comes after this number on these paths must come."""
        for path in paths:
            if path in self._new:
                self._new.discard(path)
                self._heard[path] = max(self._heard[path], last)

    async def leave(self, groups: Sequence[str]) -> None:
        connection = self._stream.connection
        for path in map(self._names.group, groups):
            self._heard.pop(path, None)
            self._new.discard(path)
            if (number := self._subscriptions.pop(path, None)) is not None:
                connection.unsubscribe(number)
        await connection.barrier()

    async def publish(self, group: str, envelope: Envelope) -> None:
        await self._send(self._names.group(group), envelope)

    async def push_node(self, node: str, envelope: Envelope) -> None:
        await self._send(self._names.node(node), envelope)

    async def _send(self, path: str, envelope: Envelope) -> None:
        connection = self._stream.connection
        identity = f"{envelope.sender.hex()}.{envelope.seq}"
        answer = await self._stream.send(
            self._names.kept(path), envelope.encoded, {"Nats-Msg-Id": identity}
        )
        if answer.status == NO_RESPONDERS:
            self._stream.forget(self._name)
            connection.fail(Broken(f"the stream {self._name} has gone"))
            raise TransportDown(f"the stream {self._name} has gone")
        try:
            check(json.loads(answer.data))
        except ValueError:
            raise ChannelLayerUnavailable("JetStream answered what cannot be read.") from None
