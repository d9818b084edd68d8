"""What the broker must have: queues and memberships made on first use, groups bound and unbound.

All on one channel, which the broker closes when it refuses something; then it is opened anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pamqp import commands

from channels.backends.rabbitmq.channel import NOT_FOUND, Broken, ChannelEnded, Properties
from channels.backends.rabbitmq.connection import AmqpConnection
from channels.backends.rabbitmq.names import Names
from channels.exceptions import TransportDown

logger = logging.getLogger("channels.layers")

PRECONDITION_FAILED: Final = 406
#: Queues that one process remembers to have declared.
_MOST_DECLARED: Final = 10_000
#: Octets of a name in AMQP.
_LONGEST_NAME: Final = 255
#: Queues deleted with one write.
_FLUSHED_AT_ONCE: Final = 50
#: Seconds between attempts to declare a queue whose node of the cluster is down.
_AGAIN_SECONDS: Final = 0.5


class Declarer:
    """Changes the topology over one connection.

    Args:
        capacity_of: A channel's.
        refresh: Seconds after which a queue in use is declared again, so that it lives on.
        spawn: Starts a task of the transport.
    """

    def __init__(
        self,
        connection: AmqpConnection,
        number: int,
        names: Names,
        capacity_of: Callable[[str], int],
        refresh: float,
        spawn: Callable[..., asyncio.Task[Any]],
    ) -> None:
        self._connection = connection
        self._number = number
        self._names = names
        self._capacity_of = capacity_of
        self._refresh = refresh
        self._spawn = spawn
        self._channel = connection.channel(number)
        self._channel.may_end = True
        self._lock = asyncio.Lock()
        #: Channel -> when it was asked for, and the task or what is left of it.
        self._declared: dict[str, tuple[float, asyncio.Task[Sequence[str]]]] = {}
        #: Channels whose queues are on a node that is down -> the task that waits for it.
        self._away: dict[str, asyncio.Task[None]] = {}
        self._differing: set[str] = set()
        self._registered: set[str] = set()

    async def call(self, frame: Any) -> Any:
        """One method and its answer.

        Raises:
            Broken: If it is refused (`ChannelEnded`), or the connection breaks.
        """
        async with self._lock:
            return await self._call(frame)

    async def _call(self, frame: Any) -> Any:
        if self._channel.has_ended:
            if self._connection.ended.done():
                raise self._connection.ended.result()
            self._channel = self._connection.channel(self._number)
            self._channel.may_end = True
        # Shielded by a future of its own: who is cancelled leaves the answer's place as it is.
        return await self._channel.call(frame)

    async def exists(self, name: str) -> bool:
        """Whether there is a queue of this name."""
        try:
            await self.call(commands.Queue.Declare(0, name, passive=True))
        except ChannelEnded as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True

    async def declare_own(self, name: str, arguments: dict[str, Any]) -> None:
        """A durable queue whose declaration is the same everywhere."""
        await self.call(commands.Queue.Declare(0, name, durable=True, arguments=arguments))

    async def declare_full(self) -> None:
        """Where full queues put what they refuse."""
        names = self._names
        await self.call(commands.Exchange.Declare(0, names.full, "headers", durable=True))
        try:
            await self.declare_own(names.full, names.full_arguments())
        except ChannelEnded as error:
            # A process with another `node_capacity` has made it: it serves as it is.
            if error.code != PRECONDITION_FAILED:
                raise
        matches = names.full_matches()
        await self.call(commands.Queue.Bind(0, names.full, names.full, "", arguments=matches))

    async def declare_all(self, queues: Sequence[tuple[str, dict[str, Any]]]) -> list[int]:
        """Several of those, with one write; how many messages are in each."""
        frames = [
            commands.Queue.Declare(0, name, durable=True, arguments=arguments)
            for name, arguments in queues
        ]
        answers = await self._call_all(frames)
        if not self._registered.issuperset(name for name, _ in queues):
            for name, _ in queues:
                self._register(name)
                self._registered.add(name)
        return [answer.message_count for answer in answers]

    # Queues of channels.

    def declare(self, channel: str) -> asyncio.Task[Sequence[str]]:
        """The task that sees to it that a channel's queues exist; done already if they do.

        Its result are their names in the broker: `Names.sources`.
        """
        found = self._declared.get(channel)
        now = time.monotonic()
        if found is not None and now - found[0] < self._refresh:
            task = found[1]
            if not task.done() or (not task.cancelled() and task.exception() is None):
                return task
        if len(self._declared) >= _MOST_DECLARED:
            self._declared.pop(next(iter(self._declared)))
        task = self._spawn(self._declare(channel), name=f"declaration of {channel}", on_done=_seen)
        self._declared[channel] = (now, task)
        return task

    def forget(self, channel: str | None = None) -> None:
        """A channel's queue is gone; None: all are."""
        if channel is None:
            self._declared.clear()
            self._registered.clear()
        else:
            self._declared.pop(channel, None)

    def waits_for(self, channel: str) -> asyncio.Task[None] | None:
        """Who sends to a channel waits for this first; None: for nothing."""
        return self._away.get(channel)

    def await_node(self, channel: str) -> asyncio.Task[None]:
        """The node of the channel's queue is down: the task that waits until it is there again."""
        task = self._away.get(channel)
        if task is None:
            task = self._spawn(
                self._await_node(channel), name=f"return of the queue of {channel}", on_done=_seen
            )
            self._away[channel] = task
        return task

    async def _await_node(self, channel: str) -> None:
        logger.warning("The node of the RabbitMQ cluster with the queue of %s is down", channel)
        try:
            while True:
                await asyncio.sleep(_AGAIN_SECONDS)
                try:
                    self.forget(channel)
                    await asyncio.shield(self.declare(channel))
                except ChannelEnded as error:
                    if not error.is_away:
                        raise
                else:
                    return
        finally:
            del self._away[channel]

    async def _declare(self, channel: str) -> Sequence[str]:
        name = self._names.queue(channel)
        arguments = self._names.queue_arguments(channel, self._capacity_of(channel))
        try:
            await self.declare_own(name, arguments)
        except ChannelEnded as error:
            if error.code != PRECONDITION_FAILED:
                raise
            # Made with other settings; its messages are worth more than they.
            if channel not in self._differing:
                self._differing.add(channel)
                logger.warning(
                    "The queue %s exists with another capacity or expiry than the settings ask "
                    "for, and is used as it is; it is made anew once it was deleted or unused.",
                    name,
                )
        self._register(name)
        if self._names.keeps(channel):
            returned = self._names.returned(channel)
            await self.declare_own(returned, self._names.returned_arguments())
            self._register(returned)
        return self._names.sources(channel)

    def _register(self, name: str) -> None:
        self._channel.publish("", self._names.names, Properties(), name.encode())

    # Groups.

    async def bind(self, inbox: str, groups: Sequence[str]) -> None:
        frames = [commands.Queue.Bind(0, inbox, self._names.groups, group) for group in groups]
        await self._call_all(frames)

    async def unbind(self, inbox: str, groups: Sequence[str]) -> None:
        frames = [commands.Queue.Unbind(0, inbox, self._names.groups, group) for group in groups]
        await self._call_all(frames)

    async def _call_all(self, frames: Sequence[Any]) -> list[Any]:
        async with self._lock:
            first = await self._call(frames[0])
            rest = await asyncio.gather(*(self._channel.call(frame) for frame in frames[1:]))
        return [first, *rest]

    async def add_member(self, group: str, channel: str) -> None:
        await asyncio.shield(self.declare(channel))
        names = self._names
        counted, arguments = names.counted(group, channel), names.counted_arguments()
        await self._declare_bound(counted, arguments, names.question(group))
        name = names.membership(group, channel)
        await self._declare_bound(name, names.membership_arguments(channel), group)

    async def _declare_bound(self, name: str, arguments: dict[str, Any], key: str) -> None:
        """A queue bound to the exchange of groups; made anew if it has other arguments."""
        frames = [
            commands.Queue.Declare(0, name, durable=True, arguments=arguments),
            commands.Queue.Bind(0, name, self._names.groups, key),
        ]
        try:
            await self._call_all(frames)
        except ChannelEnded as error:
            if error.code != PRECONDITION_FAILED:
                raise
            await self.call(commands.Queue.Delete(0, name))
            await self._call_all(frames)
        self._register(name)

    async def discard_member(self, group: str, channel: str) -> None:
        names = self._names
        await self._call_all(
            [
                commands.Queue.Delete(0, names.membership(group, channel)),
                commands.Queue.Delete(0, names.counted(group, channel)),
            ]
        )

    async def flush(self) -> None:
        """Delete every queue whose name was registered."""
        self.forget()
        seen: set[bytes] = set()
        while True:
            gets = [commands.Basic.Get(0, self._names.names, no_ack=True)] * _FLUSHED_AT_ONCE
            found = [each[2] for each in await self._call_all(gets) if isinstance(each, tuple)]
            await self._delete({self._name(data) for data in found if data not in seen} - {""})
            seen.update(found)
            if len(found) < len(gets):
                return

    def _name(self, registered: bytes) -> str:
        """The name of a queue of this layer; "" for what others have put there."""
        name = registered.decode(errors="replace")
        is_ours = name.startswith(f"{self._names.prefix}.") and len(registered) <= _LONGEST_NAME
        return name if is_ours else ""

    async def _delete(self, names: set[str]) -> None:
        frames = [commands.Queue.Delete(0, name) for name in names]
        try:
            if frames:
                await self._call_all(frames)
        except ChannelEnded:
            # One is on a node that is down; the others can be deleted.
            for frame in frames:
                try:
                    await self.call(frame)
                except ChannelEnded as error:
                    logger.warning("%s could not be deleted: %s", frame.queue, error)


def _seen(task: asyncio.Task[Any]) -> None:
    """Whoever waits for a declaration is told its error; if nobody does, nobody needs it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.DEBUG if isinstance(error, Broken | TransportDown) else logging.ERROR
        logger.log(level, "A declaration failed: %s", error)
