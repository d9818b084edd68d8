"""What a process asks of one Redis server: the operations of `Transport`, and what answers mean."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from channels.backends.lease_reader import LeaseReader
from channels.backends.redis import scripts
from channels.backends.redis.connection import RedisConnection
from channels.backends.redis.options import RedisOptions
from channels.backends.shell import Broken
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelFull, ChannelLayerUnavailable, NodeGone, TransportDown
from channels.kit.clock import wall_ahead
from channels.layers.contract import Backlog, Capabilities, Taker, TransportEvents
from channels.layers.envelope import Envelope, deadline_of

logger = logging.getLogger("channels.layers")

#: Groups in one command.
BATCH: Final = 500
#: Pushes remembered of which it is not known whether they were carried out, or which were.
MAX_UNSURE: Final = 10_000
#: Messages held back that one call puts into their queues.
MOST_DUE: Final = 100
#: Seconds between two looks at what is due while Redis does not answer.
RETRY: Final = 0.25

#: What a push is known by: its sender and queue, since one envelope may go to several, and number.
Mark = tuple[bytes, int]


def key_base(prefix: str, tag: str | None = None) -> str:
    """What a layer's keys begin with; those of one tag are in one slot of a Redis Cluster."""
    return f"{prefix}:{{{tag}}}:" if tag is not None else f"{prefix}:"


class RedisOperations:
    """The operations of one process, while there is a connection.

    Attributes:
        joined: The groups that Redis has this process in.
        clock_offset: Seconds to add to this machine's monotonic clock for the server's time.
        owner_of: Which of several servers has a queue.
        token: What this process's lease says as long as this connection's commands hold.
    """

    capabilities: Final = Capabilities(delays=True, queue_members=True)

    def __init__(self, base: str, options: RedisOptions) -> None:
        self.clock_offset = wall_ahead()
        self.joined: dict[str, None] = {}
        self.owner_of: Callable[[str], RedisOperations] = lambda _queue: self
        self.token = ""
        self._base = base
        self._options = options
        self._counters: Counter[str] = Counter()
        self._index = itertools.count(1)
        #: What was asked for when its answer was lost -> its index; and what turned out to have
        #: been carried out -> whether there was room.
        self._unsure: OrderedDict[Mark, int] = OrderedDict()
        self._executed: OrderedDict[Mark, bool] = OrderedDict()
        #: The connection for commands, while they are taken.
        self._commands: RedisConnection | None = None
        self._events: TransportEvents
        self._begin_reading()
        self._node = ""
        #: This process's word in the keys that only it uses.
        self._session = ""

    # Groups and inboxes.

    async def join(self, groups: Sequence[str]) -> None:
        for batch in _batches(groups):
            await self._run(scripts.JOIN, self._node, "SADD", *batch)
            self.joined.update(dict.fromkeys(batch))

    async def leave(self, groups: Sequence[str]) -> None:
        for batch in _batches(groups):
            await self._run(scripts.JOIN, self._node, "SREM", *batch)
            for group in batch:
                self.joined.pop(group, None)

    async def publish(self, group: str, envelope: Envelope) -> None:
        bound = self._options.node_capacity
        found = await self._run(scripts.PUBLISH, group, envelope.encoded, bound)
        if found:
            missed, *queues = found
            self._counters["inboxes_full"] += missed
            if queues:
                await self._push_to_members(group, envelope, queues)

    async def _push_to_members(self, group: str, envelope: Envelope, found: Sequence[Any]) -> None:
        """Push to a group's queues, wherever they are.

        Args:
            found: A queue, its capacity, another queue, its capacity and so on.
        """
        names = [name.decode() for name in found[::2]]
        # All begin at once, so that those of another send do not come between them.
        pushes = [
            self.owner_of(name).push(name, envelope, capacity)
            for name, capacity in zip(names, found[1::2], strict=True)
        ]
        errors = await asyncio.gather(*pushes, return_exceptions=True)
        full = sum(isinstance(error, ChannelFull) for error in errors)
        for error in errors:
            if isinstance(error, TransportDown):
                # The whole is asked for again: these shall not get it twice.
                for name, other in zip(names, errors, strict=True):
                    if other is None:
                        self.owner_of(name).note_pushed(name, envelope)
            if isinstance(error, BaseException) and not isinstance(error, ChannelFull):
                raise error
        if full:
            self._events.on_over_capacity(group, full, len(names))

    async def push_node(self, node: str, envelope: Envelope) -> None:
        bound = self._options.node_capacity
        taken = await self._run(scripts.PUSH_NODE, node, envelope.encoded, bound)
        if taken == -2:
            raise NodeGone(node)
        if taken == -1:
            raise ChannelFull(
                f"The process of {envelope.name} has not read {bound} messages (node_capacity)."
            )

    async def add_queue(self, group: str, queue: str, expires: float) -> None:
        capacity = self._events.capacity_of(queue)
        await self._run(scripts.ADD_QUEUE, group, queue, int(expires * 1000), capacity)

    async def discard_queue(self, group: str, queue: str) -> None:
        await self._do("HDEL", f"{self._base}gx:{group}", queue)

    # Queues.

    async def push(self, queue: str, envelope: Envelope, capacity: int) -> None:
        if not await self._push_once(queue, envelope, capacity, 0):
            raise ChannelFull(f"{queue} holds its capacity of {capacity} unread messages.")

    async def push_later(self, queue: str, envelope: Envelope, due: float, bound: int) -> None:
        if not await self._push_once(queue, envelope, bound, int(due * 1000)):
            raise ChannelFull(f"{bound} delayed messages are pending already (max_delayed).")
        self._ticker.due_in(due - time.monotonic() - self.clock_offset)

    async def _push_once(self, queue: str, envelope: Envelope, limit: int, due: int) -> bool:
        """Push, once also if it is asked for again; returns whether there was room.

        Each push of a process has a higher index than the one before.  Redis keeps the last one,
        so that the next connection can ask which pushes without an answer were carried out.
        """
        mark = _mark(queue, envelope)
        if self._executed and (had_room := self._executed.pop(mark, None)) is not None:
            return had_room
        index = next(self._index)
        try:
            return bool(
                await self._run(
                    *(scripts.PUSH, queue, envelope.encoded, self._session, index, limit, due)
                )
            )
        except TransportDown:
            _remember(self._unsure, mark, index)
            raise

    def note_pushed(self, queue: str, envelope: Envelope) -> None:
        """This push was carried out: should it be asked for again, it is not."""
        _remember(self._executed, _mark(queue, envelope), True)

    def _learn(self, last: int, refused: set[int]) -> None:
        """Note which pushes whose answers were lost had been carried out."""
        for mark, index in self._unsure.items():
            if index <= last:
                _remember(self._executed, mark, index not in refused)
        self._unsure.clear()

    def _begin_reading(self) -> None:
        self._ticker = Ticker()
        self._leases = LeaseReader(LeaseQuestions(self), self._ticker)

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        self._leases.demand(queue, count, seconds, taker)

    async def acknowledge(self, queue: str, token: bytes) -> bool:  # noqa: ARG002 - it is in the token
        return bool(await self._run(scripts.ACKNOWLEDGE, token))

    async def release(
        self,
        queue: str,  # noqa: ARG002
        token: bytes,
        delay: float,
        counted: bool,
    ) -> bool:
        done = await self._run(scripts.RELEASE, token, int(delay * 1000), int(counted))
        self._ticker.due_in(delay)
        return bool(done)

    async def extend(self, queue: str, token: bytes, seconds: float) -> bool:  # noqa: ARG002
        return bool(await self._run(scripts.EXTEND, token, int(seconds * 1000)))

    async def backlog(self, queue: str) -> Backlog:
        key = f"{self._base}q:{queue}"
        waiting, oldest = await asyncio.gather(self._do("LLEN", key), self._do("LINDEX", key, 0))
        return Backlog(waiting, None if oldest is None else deadline_of(oldest))

    @property
    def is_open(self) -> bool:
        """True while commands are taken."""
        return self._commands is not None

    def new_token(self) -> str:
        """What the tokens of one question for leases begin with."""
        return f"{self._session}:{next(self._index)}:"

    def begin_lease(
        self, queue: str, token: str, count: int, seconds: float
    ) -> asyncio.Future[Any]:
        assert self._commands is not None, "is_open says so"
        milliseconds = int(seconds * 1000)
        return self._commands.call(
            *self._evaluation(scripts.LEASE, queue, token, count, milliseconds, self._node)
        )

    async def _tick(self) -> float | None:
        """As `Tick`, through failures."""
        try:
            wait, run_out = await self._run(scripts.TICK, MOST_DUE)
        except (TransportDown, ChannelLayerUnavailable) as error:
            logger.debug("Polling delayed messages failed; retrying in %s s: %s", RETRY, error)
            return RETRY
        self._counters["leases_run_out"] += run_out
        return wait / 1000 if wait >= 0 else None

    async def flush(self) -> None:
        """Forget queues and their memberships; the nodes of groups stay, and hear of it."""
        for pattern in (f"{self._base}q:", f"{self._base}gx:"):
            cursor: Any = 0
            while True:
                cursor, found = await self._do(
                    "SCAN", cursor, "MATCH", _literal(pattern) + "*", "COUNT", 1000
                )
                if found:
                    await self._do("DEL", *found)
                if int(cursor) == 0:
                    break
        await self._do("DEL", *(f"{self._base}{name}" for name in ("hd", "hl", "hb")))

    # Inside.

    def _evaluation(self, script: str, *arguments: Any) -> tuple[Any, ...]:
        """The command that runs a script of this process's own."""
        lease = f"{self._base}al:{self._node}"
        return scripts.evaluation(script, lease, self.token, self._base, *arguments)

    async def _run(self, script: str, *arguments: Any) -> Any:
        """Run a script; errors as for `_do`."""
        return await self._do(*self._evaluation(script, *arguments))

    async def _do(self, *command: Any) -> Any:
        """Carry out a command; it has its place in the order before the first await.

        Raises:
            TransportDown: If there is no connection, or it broke before the answer.
            ChannelLayerUnavailable: If the server refuses this command.
        """
        if self._commands is None:
            raise TransportDown("Redis is not connected")
        try:
            return await self._commands.call(*command)
        except ResponseError as error:
            self._counters["refused"] += 1
            raise ChannelLayerUnavailable(f"Redis refused a command: {error}") from error
        except Broken as error:
            raise TransportDown(f"the connection to Redis broke: {error}") from error


class LeaseQuestions:
    """How one process asks one server for leases: its `LeaseCalls`."""

    notes_waiting: Final = True

    def __init__(self, operations: RedisOperations) -> None:
        self._operations = operations

    @property
    def is_open(self) -> bool:
        return self._operations.is_open

    def new_token(self) -> str:
        return self._operations.new_token()

    def begin_lease(
        self, queue: str, token: str, count: int, seconds: float
    ) -> asyncio.Future[Any]:
        return self._operations.begin_lease(queue, token, count, seconds)

    def read_leases(self, answer: Any) -> Any:
        return answer

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        return await self._operations.release("", token, delay, counted)


def _mark(queue: str, envelope: Envelope) -> Mark:
    return envelope.sender + queue.encode(), envelope.seq


def _remember(table: OrderedDict[Mark, Any], mark: Mark, value: int) -> None:
    table[mark] = value
    if len(table) > MAX_UNSURE:
        table.popitem(last=False)


def _batches(groups: Sequence[str]) -> list[Sequence[str]]:
    """The groups in portions for one command."""
    return [groups[start : start + BATCH] for start in range(0, len(groups), BATCH)]


def _literal(text: str) -> str:
    """A pattern for keys in which nothing is special."""
    return "".join(f"\\{letter}" if letter in r"*?[]\\" else letter for letter in text)
