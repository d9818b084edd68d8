"""The layer of one process: for development, tests, and sites that run in one process."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeVar

from channels.backends.memory.engine import MemoryEngine
from channels.backends.memory.queue import Demand
from channels.kit.clock import Clock, SystemClock
from channels.layers.codec import InProcessSerializer
from channels.layers.contract import Backlog, Capabilities, Taker, TransportEvents
from channels.layers.envelope import Envelope
from channels.layers.options import LayerOptions
from channels.layers.process.alarm import Alarm
from channels.layers.process.layer import NodeChannelLayer

V = TypeVar("V")

MARK: Final = ".inmemory!"

#: What `serializer_format` says of this layer unless CONFIG names another.
IN_PROCESS: Final = "in-process"


class MemoryTransport:
    """An engine in the same process: nothing waits, nothing is lost, nothing leaves."""

    capabilities: Final = Capabilities(is_direct=True, delays=True, queue_members=True)
    clock_offset: Final = 0.0

    def __init__(self, engine: MemoryEngine, clock: Clock) -> None:
        self.engine = engine
        self.events: TransportEvents
        self._alarm = Alarm(clock, engine.tick)
        engine.on_due = self._alarm.set

    async def start(self, node: str, events: TransportEvents) -> None:  # noqa: ARG002 - one node
        self.events = events

    async def stop(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        # In a forked child what waits there belongs to the parent.
        self._alarm.cancel()
        self.engine.flush()
        self.engine.queues.clear()

    async def flush(self) -> None:
        self.engine.flush()

    async def join(self, groups: Sequence[str]) -> None:
        """Every group's envelopes come anyway."""

    async def leave(self, groups: Sequence[str]) -> None:
        """Nothing was joined."""

    async def publish(self, group: str, envelope: Envelope) -> None:
        if group in self.engine.groups:
            full, members = self.engine.publish(group, envelope, self.events.capacity_of)
            if full:
                self.events.on_over_capacity(group, full, members)
        self.events.on_frame(envelope)

    async def push_node(self, node: str, envelope: Envelope) -> None:  # noqa: ARG002 - one node
        # Only a name from another layer bears a node's mark; here it is a queue like any.
        self.engine.push(envelope.name, envelope, self.events.capacity_of(envelope.name))

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        self.engine.push(queue, envelope, capacity)

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        self.engine.push_later(queue, envelope, due, bound)

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self.engine.demand(self.events, queue, Demand(count, seconds, taker))

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002 - one engine
        return self.engine.acknowledge(token)

    async def release(
        self,
        queue: str,  # noqa: ARG002 - one engine
        token: bytes,
        delay: float,
        counted: bool,
    ) -> bool:
        return self.engine.release(token, delay, counted)

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return self.engine.extend(token, seconds)

    async def backlog(self, queue: str) -> Backlog:
        return self.engine.backlog(queue)

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        self.engine.add(group, queue, expires)

    async def discard_queue(self, group: str, queue: str) -> None:
        self.engine.discard(group, queue)

    def statistics(self) -> Mapping[str, int]:
        return self.engine.statistics()


class InMemoryChannelLayer(NodeChannelLayer):
    """Channels and groups of one process; any thread and loop of it.

    Messages go through an encoding as in other layers, so a later change to one that was sent
    reaches nobody.  A message with values that could not leave the process is copied as
    `copy.deepcopy` does it, and the log names their types; `serializer_format="msgpack"` refuses
    it, as other layers do.

    Args:
        expiry: Seconds after which an unread message is dropped.
        group_expiry: Seconds after which membership ends, unless refreshed.
        capacity: How many unread messages a channel may hold.
        channel_capacity: See `BaseChannelLayer`.
        kwargs: Other options of `LayerOptions`; what a shared CONFIG holds for other backends is
            ignored.
    """

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        **kwargs: Any,
    ) -> None:
        clock: Clock = kwargs.pop("clock", None) or SystemClock()
        names = LayerOptions.__dataclass_fields__.keys()
        options = LayerOptions(
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity=channel_capacity,
            **{"serializer_format": IN_PROCESS}
            | {key: value for key, value in kwargs.items() if key in names},
        )
        self._clock = clock
        self.engine = MemoryEngine(clock, lambda: self.expiry / 4)
        transport = MemoryTransport(self.engine, clock)
        serializer = InProcessSerializer() if options.serializer_format == IN_PROCESS else None
        super().__init__(transport, options, clock=clock, mark=MARK, serializer=serializer)
        transport.events = self.node

    async def new_channel(self, prefix: str = "specific.") -> str:
        """A new channel's name: "<prefix>.inmemory!<12 letters>"."""
        return await super().new_channel(prefix)

    @property
    def channels(self) -> LiveView[ChannelView]:
        """The channels that hold messages or have a reader, live; `del` forgets the messages."""
        return LiveView(self._channels, self._forget_messages)

    @property
    def groups(self) -> LiveView[Mapping[str, float]]:
        """Group -> channel -> when it was added, in seconds since 1970, live; `del` empties one."""
        return LiveView(self._groups, self._forget_group)

    def _clean_expired(self) -> None:
        """Drop now what has expired, messages and memberships; it is done now and then anyway.

        A name that tests of applications call.
        """
        local = self.node.local
        with self.engine.lock:
            self.engine.sweep(at_once=True)
        local.sweep_due = -math.inf
        while local.sweep():
            # One call looks at a part.
            pass

    def _remove_from_groups(self, channel: str) -> None:
        """Take a channel out of all groups.  A name that tests of applications call."""
        for group in self._groups():
            self._leave(group, channel)

    def _leave(self, group: str, channel: str) -> None:
        self.engine.discard(group, channel)
        self.node.local.discard(group, channel)

    def _forget_messages(self, channel: str) -> None:
        self.engine.discard_unread(channel)
        local = self.node.local
        with local.lock:
            if (inbox := local.inboxes.get(channel)) is not None:
                inbox.take_all()
                local.tidy(channel)

    def _forget_group(self, group: str) -> None:
        for channel in self._groups()[group]:
            self._leave(group, channel)

    def _channels(self) -> dict[str, ChannelView]:
        local = self.node.local
        with self.engine.lock, local.lock:
            found = {name: ChannelView(0) for name in local.hub.channels if local.is_attached(name)}
            for name, entry in self.engine.queues.items():
                found[name] = ChannelView(len(entry.envelopes))
            for name, inbox in local.inboxes.items():
                if inbox.readers or len(inbox):
                    found[name] = ChannelView(len(inbox))
            return found

    def _groups(self) -> dict[str, Mapping[str, float]]:
        local = self.node.local
        ahead = self._clock.time() - self._clock.monotonic()
        with self.engine.lock, local.lock:
            found: dict[str, dict[str, float]] = {
                name: {channel: added + ahead for channel, added in group.added.items()}
                for name, group in local.hub.groups.items()
            }
            for name, members in self.engine.groups.items():
                found.setdefault(name, {}).update(
                    {
                        queue: expires - self.group_expiry + ahead
                        for queue, expires in members.items()
                    }
                )
            # What is written there would change nothing.
            return {name: MappingProxyType(members) for name, members in found.items()}


class ChannelView:
    """How many messages a channel holds; in the words of a queue."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def qsize(self) -> int:
        return self._size

    def empty(self) -> bool:
        return self._size == 0


class LiveView(UserDict[str, V]):
    """A mapping that is read anew with each access.

    Args:
        delete: Called with a key that is there.
    """

    def __init__(self, read: Callable[[], dict[str, V]], delete: Callable[[str], None]) -> None:
        self._read = read
        self._delete = delete

    @property
    def data(self) -> dict[str, V]:  # type: ignore[override]
        return self._read()

    def __setitem__(self, key: str, value: V) -> None:
        raise TypeError(
            f"The in-memory layer's {key!r} cannot be set here: call its send() or group_add()."
        )

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._delete(key)

    def clear(self) -> None:
        # Not one by one until none is left: a channel that is being read stays.
        for key in self.data:
            self._delete(key)
