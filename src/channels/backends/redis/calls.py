"""What a process asks of one Redis server: its commands and what their answers mean."""

from __future__ import annotations

import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from channels.backends.redis import queue_scripts, scripts
from channels.backends.redis.keys import Keys
from channels.backends.redis.line import CommandConnection, Mark, refusal
from channels.backends.redis.options import RedisOptions
from channels.exceptions import ChannelFull, NodeGone, TransportDown
from channels.kit.clock import wall_ahead
from channels.layers.envelope import Envelope
from channels.layers.names import ALL_NODES, new_node

#: Milliseconds for which a process's own keys outlive its last word.
KEEP: Final = 60_000
#: The same for the nodes of a group, which are named again every `GROUP_LIFE / 4`.
GROUP_LIFE: Final = 86_400_000
#: The same for a queue with messages that do not expire: ten years.
FOREVER: Final = 315_360_000_000
#: Groups in one command.
BATCH: Final = 500
#: Calls remembered of which is known that they were carried out, until they are made again.
MAX_EXECUTED: Final = 10_000

#: Told of (group, queues that were full, queues).
OverCapacity = Callable[[str, int, int], None]


class Calls:
    """The operations of `Transport` on one server.

    Args:
        queue_life: Seconds after which an unread queue may be forgotten as a whole.
    """

    def __init__(
        self,
        keys: Keys,
        line: CommandConnection,
        options: RedisOptions,
        queue_life: Callable[[], float],
    ) -> None:
        self.keys = keys
        self.line = line
        self.counters: Counter[str] = line.counters
        #: Seconds to add to this machine's monotonic clock for the server's time.
        self.clock_offset = wall_ahead()
        self.joined: dict[str, None] = {}
        #: This process's word in the keys that only it uses.
        self.session = new_node()
        #: What the process's lease says while this connection's commands hold; see `scripts.STALE`.
        self.token = ""
        self.node = ""
        self.own = keys.own("", self.session)
        #: How queues note this process as waiting; see `queue_scripts.WAKE`.
        self.waiter = ""
        self.on_over_capacity: OverCapacity = lambda _group, _full, _members: None
        self._options = options
        self._queue_life = queue_life
        self._index = itertools.count(1)
        self._executed: OrderedDict[Mark, bool] = OrderedDict()

    def serve(self, node: str) -> None:
        """Whose operations these are."""
        self.node = node
        self.own = self.keys.own(node, self.session)

    def next_index(self) -> int:
        """Higher than that of any call before."""
        return next(self._index)

    def learn(self, last: int, refused: set[int]) -> None:
        """Note which calls whose answers were lost had been carried out."""
        unsure, self.line.unsure = self.line.unsure, []
        for mark, index in unsure:
            if index <= last:
                self._executed[mark] = index not in refused
        while len(self._executed) > MAX_EXECUTED:
            self._executed.popitem(last=False)

    async def join(self, groups: Sequence[str]) -> None:
        """As `Bus.join`."""
        for batch in batches(groups):
            await self._introduced(scripts.JOIN, self.keys.base, self.node, GROUP_LIFE, *batch)
            self.joined.update(dict.fromkeys(batch))

    async def leave(self, groups: Sequence[str]) -> None:
        """As `Bus.leave`."""
        for batch in batches(groups):
            await self._introduced(scripts.LEAVE, self.keys.base, self.node, *batch)
            for group in batch:
                self.joined.pop(group, None)

    async def count_nodes(self) -> int:
        """How many processes have joined their groups here; 0 if this server does not tell."""
        return await self._count(
            *scripts.evaluation(scripts.NODES, (self.keys.group(ALL_NODES),), self.keys.base)
        )

    async def publish(
        self, group: str, envelope: Envelope, deferring: bool
    ) -> Sequence[tuple[str, int]]:
        """As `Bus.publish`.

        Args:
            deferring: The group's queues may be on other shards: return them with their capacities
                instead of filling them.
        """
        mark, index = (envelope.sender, envelope.seq), next(self._index)
        if not deferring and self._executed and self._executed.pop(mark, None) is not None:
            return ()
        keys = self.keys
        found = await self._run(
            scripts.PUBLISH,
            (keys.group(group), keys.group_queues(group), self.own.sequence, self.own.lease),
            *(keys.base, group, envelope.encoded, self._options.node_capacity, KEEP),
            *(self._life(), index, int(deferring), self.token),
            mark=mark,
            index=index,
        )
        if not isinstance(found, list):
            return ()
        full, members, missed, *deferred = found
        self.counters["inboxes_full"] += missed
        if full:
            self.on_over_capacity(group, full, members)
        names = iter(deferred)
        return [(name.decode(), int(capacity)) for name, capacity in zip(names, names, strict=True)]

    async def push_node(self, node: str, envelope: Envelope) -> None:
        """As `Bus.push_node`."""
        keys, bound = self.keys, self._options.node_capacity
        taken = await self._run(
            scripts.PUSH_NODE,
            (keys.inbox(node), keys.lease(node), self.own.lease),
            *(envelope.encoded, bound, KEEP, self.token),
        )
        if taken == -2:
            raise NodeGone(node)
        if taken == -1:
            raise ChannelFull(
                f"The process of {envelope.name} has not read {bound} messages (node_capacity)."
            )

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        """As `WorkQueue.push`."""
        keys, life = self.keys, self._life() if envelope.deadline else FOREVER
        taken = await self._fill(
            mark_of(queue, envelope),
            lambda index: (
                queue_scripts.PUSH,
                (keys.queue(queue), self.own.sequence, self.own.refused),
                *(envelope.encoded, capacity, life, index, KEEP, keys.base, queue),
            ),
        )
        if taken == -1:
            raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")

    def note_pushed(self, queue: str, envelope: Envelope) -> None:
        """This push was carried out: should it be asked for again, it is not."""
        self._executed[mark_of(queue, envelope)] = True

    async def add_queue(self, group: str, queue: str, expires: float, capacity: int) -> None:
        now = time.monotonic() + self.clock_offset
        life = max(1, int((expires - now) * 1000))
        member = f"{int(expires * 1000)}:{capacity}"
        await self._run(
            scripts.ADD_QUEUE,
            (self.keys.group_queues(group),),
            *(queue, member, life, self.keys.base),
        )

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._do("HDEL", self.keys.group_queues(group), queue)

    async def flush(self) -> None:
        """Forget queues and their memberships; the nodes of groups stay, and hear of it."""
        for pattern in (self.keys.queue("*"), self.keys.group_queues("*")):
            cursor: Any = 0
            while True:
                cursor, found = await self._do(
                    "SCAN", cursor, "MATCH", _literal(pattern), "COUNT", 1000
                )
                if found:
                    await self._do("DEL", *found)
                if int(cursor) == 0:
                    break

    # Inside.

    def _life(self) -> int:
        return int(self._queue_life() * 1000) + KEEP

    async def _fill(self, mark: Mark, make: Callable[[int], tuple[Any, ...]]) -> Any:
        """Run a script that fills a queue: once, also if it is asked for again.

        Args:
            make: Gives the script, its keys and its arguments, of which its index is one.
        """
        if self._executed and (was_taken := self._executed.pop(mark, None)) is not None:
            return 1 if was_taken else -1
        index = next(self._index)
        return await self._run(*make(index), mark=mark, index=index)

    def _introduced(self, script: str, *arguments: Any) -> Awaitable[Any]:
        """Run a script of this process's own lease, before all that waits."""
        if not self.line.is_open:
            raise TransportDown("Redis is not connected")
        command = scripts.evaluation(script, (self.own.lease,), self.token, *arguments)
        return self._translated(self.line.call_first(*command))

    def _run(
        self,
        script: str,
        keys: Sequence[str],
        *arguments: Any,
        mark: Mark | None = None,
        index: int = 0,
    ) -> Awaitable[Any]:
        """Run a script; `mark` and `index` as for `CommandConnection.call`."""
        command = scripts.evaluation(script, keys, *arguments)
        return self.line.call(*command, mark=mark, index=index)

    def _do(self, *command: Any) -> Awaitable[Any]:
        return self.line.call(*command)

    async def _count(self, *command: Any) -> int:
        """A number, or the one that stands second in an answer."""
        try:
            found = await self.line.call_first(*command)
        except ResponseError:
            return 0
        return int(found[1] if isinstance(found, list) else found)

    async def _translated(self, work: Awaitable[Any]) -> Any:
        """An answer, with a refusal of the server in the layer's words."""
        try:
            return await work
        except ResponseError as error:
            raise refusal(error, self.counters) from error


def mark_of(queue: str, envelope: Envelope) -> Mark:
    """What a push is known by; one envelope may go to several queues."""
    return envelope.sender + queue.encode(), envelope.seq


def batches(groups: Sequence[str]) -> list[Sequence[str]]:
    """The groups in portions for one command."""
    return [groups[start : start + BATCH] for start in range(0, len(groups), BATCH)]


def _literal(pattern: str) -> str:
    """A pattern for keys in which only the last star is one."""
    escaped = "".join(f"\\{letter}" if letter in r"*?[]\\" else letter for letter in pattern[:-1])
    return escaped + "*"
