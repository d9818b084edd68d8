"""What full queues miss of their groups' messages: counted, and told with the number of members.

The broker hands a group's messages on to member queues by itself, and its sender hears of none that
was refused.  So a queue that is full puts what it refuses into the queue `full`, if that came from
a group: the first place where such a message died is a membership, to which it came from the
exchange of groups.  What a sender was refused itself did not, and the exchange before `full` drops
it.

One process of all reads `full`, and another when its connection goes.  How many members a group has
it asks the memberships: each has a second queue, which sends a question back to whoever asks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, Properties
from channels.backends.rabbitmq.declarer import Declarer
from channels.exceptions import MalformedEnvelope, TransportDown
from channels.layers.envelope import decode_envelope

logger = logging.getLogger("channels.layers")

#: Reports that the broker sends ahead of their being counted.
PREFETCH: Final = 2000
#: Seconds for which the reports on one message are gathered, to be told with one call.
_GATHER_SECONDS: Final = 0.05
#: Seconds for which the number of a group's members is taken as known.
_KNOWN_SECONDS: Final = 5.0
#: Seconds between attempts to read `full`.
_AGAIN_SECONDS: Final = 2.0

#: One message to one group: (group, sender, number of the sender).
_Sent = tuple[str, bytes, int]


class Overflow:
    """Reads the reports while connected, if no other process does.

    Args:
        name: The queue's name.
        count_members: How many queues are members of a group.
        on_over_capacity: As `TransportEvents.on_over_capacity`.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        name: str,
        count_members: Callable[[str], Awaitable[int]],
        on_over_capacity: Callable[[str, int, int], None],
        spawn: Callable[..., asyncio.Task[Any]],
        counters: Counter[str],
    ) -> None:
        self._name = name
        self._count_members = count_members
        self._on_over_capacity = on_over_capacity
        self._spawn = spawn
        self._counters = counters
        self._reader: asyncio.Task[None] | None = None
        self._has_come = asyncio.Event()
        #: Reports that are not counted yet, at most `PREFETCH`; and the last one's tag.
        self._reports: Counter[_Sent] = Counter()
        self._tag = 0
        #: Group -> (members, until when that is taken as known).
        self._members: dict[str, tuple[int, float]] = {}

    def open(self, channel: AmqpChannel, declarer: Declarer) -> None:
        """Connected."""
        channel.on_content = self._take
        channel.on_method = lambda frame: self._take_method(frame, channel, declarer)
        self._begin(channel, declarer)

    def shut(self) -> None:
        """The connection broke; the broker gives to another what was not counted."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _begin(self, channel: AmqpChannel, declarer: Declarer) -> None:
        self.shut()
        self._reports.clear()
        self._tag = 0
        self._has_come.clear()
        self._reader = self._spawn(self._read(channel, declarer), name="count of full queues")

    def _take_method(self, frame: Any, channel: AmqpChannel, declarer: Declarer) -> None:
        if isinstance(frame, commands.Basic.Cancel):
            # Deleted by someone.
            self._begin(channel, declarer)

    def _take(self, method: Any, properties: Properties, body: bytes) -> None:
        self._tag = method.delivery_tag
        self._has_come.set()
        if not _was_refused(properties):
            # It expired in its queue, as others do there.
            return
        try:
            envelope = decode_envelope(body)
        except MalformedEnvelope:
            self._counters["dropped_malformed"] += 1
        else:
            self._reports[envelope.name, envelope.sender, envelope.seq] += 1

    async def _read(self, channel: AmqpChannel, declarer: Declarer) -> None:
        while True:
            try:
                await declarer.declare_full()
                break
            except Broken as error:
                # Its node of the cluster is down, for one.
                logger.debug("Full queues in groups cannot be counted: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
        channel.call(commands.Basic.Qos(0, PREFETCH, False))
        channel.call(commands.Basic.Consume(0, self._name, self._name))
        while True:
            await self._has_come.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._has_come.clear()
            reports, self._reports = self._reports, Counter()
            tag = self._tag
            try:
                known = {group: await self._members_of(group) for group, _, _ in reports}
            except (Broken, TransportDown):
                return
            # Both in one turn: only a connection that breaks right now has them counted again.
            for (group, _, _), full in reports.items():
                self._on_over_capacity(group, full, max(full, known[group]))
            channel.tell(commands.Basic.Ack(tag, True))

    async def _members_of(self, group: str) -> int:
        now = time.monotonic()
        count, until = self._members.get(group, (0, 0.0))
        if now >= until:
            count = await self._count_members(group)
            self._members = {name: known for name, known in self._members.items() if known[1] > now}
            self._members[group] = (count, now + _KNOWN_SECONDS)
        return count


def _was_refused(properties: Properties) -> bool:
    """Whether its queue was full; the latest death comes first."""
    deaths: Any = (properties.headers or {}).get("x-death")
    # Anybody who may publish can write that header.
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return isinstance(latest, dict) and latest.get("reason") == "maxlen"
