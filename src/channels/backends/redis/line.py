"""Commands on one connection: written in the order of their calls, answered in that order.

A call leaves at once if no other is under way; all others of one turn of the loop leave together,
in one write.  A caller that is cancelled loses its answer, not the connection.  What waits is
bounded by `MAX_UNANSWERED` bytes at the server and, before that, by its callers, who wait no longer
than their own time allows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from channels.backends.redis.hosts import OwnConnection
from channels.backends.redis.packing import Word, pack
from channels.exceptions import TransportDown
from channels.kit.tasks import TaskScope

#: How a script refuses a command of a process that Redis has forgotten.
STALE: Final = "STALELEASE"
#: Bytes that may be under way to the server without an answer.
MAX_UNANSWERED: Final = 8 * 1024 * 1024
#: Answers that mean: not this server, or not now.  The connection is made anew, which finds the
#: right one and loads the scripts again; what was under way is sent again, in order.
_NOT_HERE: Final = (
    NoScriptError,
    ReadOnlyError,
    AskError,
    ClusterDownError,
    TryAgainError,
    AuthenticationError,
)

Mark = tuple[bytes, int]


class Broken(Exception):
    """A connection serves no more; the cause is in its text."""


class StateLost(Broken):
    """The server answers, but has forgotten this process."""


class _Call:
    """A command on its way.  `mark` and `index` tell what it was if its answer is lost."""

    __slots__ = ("answer", "data", "index", "mark", "size", "written")

    def __init__(self, data: bytes, answer: asyncio.Future[Any]) -> None:
        self.data = data
        self.size = len(data)
        self.answer = answer
        self.mark: Mark | None = None
        self.index = 0
        self.written = 0.0


class Line:
    """The command connection of one server.

    Args:
        answer_seconds: With no answer for so long the connection counts as dead.
    """

    def __init__(self, answer_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        #: Marks of calls whose answers were lost, with their index; emptied by who looks at them.
        self.unsure: list[tuple[Mark, int]] = []
        self._connection: OwnConnection | None = None
        self._is_open = False
        self._held_until = 0.0
        self._first: OrderedDict[_Call, None] = OrderedDict()
        self._then: OrderedDict[_Call, None] = OrderedDict()
        self._unanswered: deque[_Call] = deque()
        self._unanswered_bytes = 0
        self._is_turn_over = True

    @property
    def is_open(self) -> bool:
        """True while calls are taken."""
        return self._is_open

    def __len__(self) -> int:
        return len(self._first) + len(self._then) + len(self._unanswered)

    def hold(self, seconds: float) -> None:
        """Write no calls for so long, apart from those of `call_first`."""
        loop = asyncio.get_running_loop()
        self._held_until = loop.time() + seconds
        loop.call_at(self._held_until, self._hold_ends, self._held_until)

    @property
    def is_held(self) -> bool:
        """True while `hold` holds."""
        return bool(self._held_until)

    def let_go(self) -> None:
        """End `hold`."""
        self._held_until = 0.0
        self._write()

    def _hold_ends(self, held_until: float) -> None:
        if held_until == self._held_until:
            self.let_go()

    async def call(self, *command: Any, mark: Mark | None = None, index: int = 0) -> Any:
        """Carry out a command; it has its place in the order before the first await.

        Raises:
            TransportDown: If the line is not open, or broke before the answer.
            ResponseError: If the server refuses this command.
        """
        if not self._is_open:
            raise TransportDown("Redis is not connected")
        return await self._submit(self._then, command, mark, index)

    def begin(self, *command: Any) -> asyncio.Future[Any]:
        """As `call`; the answer comes by the future."""
        if not self._is_open:
            raise TransportDown("Redis is not connected")
        return self._place(self._then, command).answer

    async def call_first(self, *command: Any) -> Any:
        """The same, before all that waits, also while the line is being opened."""
        if self._connection is None:
            raise TransportDown("Redis is not connected")
        return await self._submit(self._first, command, None, 0)

    async def call_all(self, *commands: Sequence[Word]) -> list[Any]:
        """Carry out commands one after the other, in one write; as `call`."""
        if not self._is_open:
            raise TransportDown("Redis is not connected")
        calls = [self._place(self._then, command) for command in commands]
        try:
            return await asyncio.gather(*(call.answer for call in calls))
        finally:
            for call in calls:
                self._then.pop(call, None)

    async def _submit(
        self,
        lane: OrderedDict[_Call, None],
        command: Sequence[Word],
        mark: Mark | None,
        index: int,
    ) -> Any:
        call = self._place(lane, command)
        call.mark, call.index = mark, index
        if call.written:
            return await call.answer
        try:
            return await call.answer
        finally:
            lane.pop(call, None)

    def _place(self, lane: OrderedDict[_Call, None], command: Sequence[Word]) -> _Call:
        loop = asyncio.get_running_loop()
        call = _Call(pack(command), loop.create_future())
        is_busy = self._unanswered or self._first or self._then or self._held_until
        if self._connection is not None and not is_busy:
            # Nothing to be put together with: the commonest case, and the cheapest.
            self._note_written(call, loop.time())
            self._connection.write(call.data)
            return call
        lane[call] = None
        if self._is_turn_over:
            self._is_turn_over = False
            loop.call_soon(self._end_turn)
        return call

    def _note_written(self, call: _Call, now: float) -> None:
        call.written = now
        self._unanswered.append(call)
        self._unanswered_bytes += call.size

    def _end_turn(self) -> None:
        self._is_turn_over = True
        self._write()

    async def serve(
        self, connection: OwnConnection, greet: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Carry out calls on this connection until it breaks, then close it.

        Args:
            greet: Runs beside; calls are taken once it has called `open`.

        Raises:
            Broken: Always, unless cancelled.
        """
        connection.take_over(self._take_reply)
        self._connection = connection
        try:
            await run_until_one_fails(connection.serve(self._take_reply), self._watch(), greet())
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError | Broken):
                raise
            raise Broken(f"{type(error).__name__}: {error}") from error
        finally:
            self.shut()
            await connection.disconnect(nowait=True)

    def open(self) -> None:
        """Take calls from now on."""
        self._is_open = True

    def shut(self) -> None:
        """Take no more calls; whoever still waits gets `TransportDown`."""
        self._connection, self._is_open, self._held_until = None, False, 0.0
        self.unsure += [
            (call.mark, call.index) for call in self._unanswered if call.mark is not None
        ]
        waiting = [*self._unanswered, *self._first, *self._then]
        self._unanswered.clear()
        self._unanswered_bytes = 0
        self._first.clear()
        self._then.clear()
        for call in waiting:
            if not call.answer.done():
                call.answer.set_exception(TransportDown("the connection to Redis broke"))

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        self._is_open = False
        if connection is not None:
            connection.abandon()

    def _write(self) -> None:
        """Write what may be written; the rest follows when there are answers."""
        if self._connection is not None and (self._first or self._then):
            data = self._take()
            if data:
                self._connection.write(data)

    def _take(self) -> bytes:
        """All that may be written now."""
        now = asyncio.get_running_loop().time()
        taken: list[bytes] = []
        lanes = [self._first] if self._held_until else [self._first, self._then]
        for lane in lanes:
            while lane and self._unanswered_bytes < MAX_UNANSWERED:
                call, _ = lane.popitem(last=False)
                if call.answer.done():
                    continue
                taken.append(call.data)
                call.data = b""
                self._note_written(call, now)
        return b"".join(taken)

    def _take_reply(self, reply: Any) -> None:
        if isinstance(reply, _NOT_HERE):
            raise reply
        if not self._unanswered:
            raise Broken(f"Redis answered unasked: {reply!r}")
        if isinstance(reply, ResponseError) and str(reply).startswith(STALE):
            raise StateLost("Redis has forgotten this process: it introduces itself again")
        call = self._unanswered.popleft()
        was_full = self._unanswered_bytes >= MAX_UNANSWERED
        self._unanswered_bytes -= call.size
        if was_full:
            self._write()
        if call.answer.done():
            return
        if isinstance(reply, ResponseError):
            call.answer.set_exception(reply)
        else:
            call.answer.set_result(reply)

    async def _watch(self) -> None:
        """Find out a connection that is silently dead."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.answer_seconds / 4)
            if self._unanswered:
                silent = loop.time() - self._unanswered[0].written
                if silent > self.answer_seconds:
                    raise Broken(f"Redis has not answered for {silent:.1f} s")


async def run_until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run all at once; when one fails, end the others and raise its error.

    Returns when all have ended without one.
    """
    scope = TaskScope("a connection to Redis")
    # Their errors are raised here, not logged by the scope.
    tasks = [scope.spawn(work, on_done=_look) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await scope.close()


def _look(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


class Pause:
    """The growing wait between attempts to connect.

    Where nobody listens the next is about a third of how long it has gone on already, so that
    processes come back soon after a server that was away for a moment.  After a connection that
    was made and broke again it doubles: making them is what a busy machine has no time for.  It
    stays below the time for which senders wait after a loss of state (`settle`), so that all are
    back before anything is sent again.
    """

    FIRST: Final = 0.02
    LONGEST: Final = 0.4
    GROWTH: Final = 1.4
    GROWTH_IF_MADE: Final = 2.0

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._next = 0.0
        self._growth = self.GROWTH

    def made(self) -> None:
        """There is a connection, and nothing is said yet of how long."""
        self._growth = self.GROWTH_IF_MADE

    def reset(self) -> None:
        """It has worked."""
        self._next = 0.0

    @property
    def due(self) -> float:
        """Seconds that the next wait may take."""
        return self._next

    async def wait(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Wait, between half and all of what is due; the first time not at all."""
        seconds = self._next * (0.5 + self._jitter() / 2)
        self._next = min(self.LONGEST, max(self.FIRST, self._next * self._growth))
        self._growth = self.GROWTH
        await sleep(seconds)
