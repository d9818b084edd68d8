"""Commands on one connection: written in the order of their calls, answered in that order.

A call leaves at once if no other is under way; all others of one turn of the loop leave together,
in one write.  A caller that is cancelled loses its answer, not the connection.  What waits is
bounded by `MAX_UNANSWERED` bytes at the server and, before that, by its callers, who wait no longer
than their own time allows.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from channels.backends.redis.connection import RedisConnection, Word, pack
from channels.backends.shell import Broken, run_until_one_fails, watch_silence
from channels.exceptions import ChannelLayerUnavailable, TransportDown

#: How a script refuses a command of a process that Redis has forgotten.
STALE: Final = "STALELEASE"
#: Bytes that may be under way to the server without an answer.
MAX_UNANSWERED: Final = 8 * 1024 * 1024
#: Seconds between attempts to connect, at most: less than the time for which senders wait after a
#: loss of state (`settle`), so that all are back before anything is sent again.
LONGEST_PAUSE: Final = 0.4

Mark = tuple[bytes, int]


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


def refusal(error: ResponseError, counters: Counter[str]) -> ChannelLayerUnavailable:
    """What the server says of a command that it refuses, counted and in the layer's words."""
    counters["refused"] += 1
    return ChannelLayerUnavailable(f"Redis refused a command: {error}")


class CommandConnection:
    """The command connection of one server.

    Args:
        answer_seconds: With no answer for so long the connection counts as dead.
    """

    def __init__(self, answer_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        self.counters: Counter[str] = Counter()
        #: Marks of calls whose answers were lost, with their index; emptied by who looks at them.
        self.unsure: list[tuple[Mark, int]] = []
        self._connection: RedisConnection | None = None
        self._is_open = False
        self._held_until = 0.0
        # A call that is cancelled stays in its lane, and is not written.
        self._first: deque[_Call] = deque()
        self._then: deque[_Call] = deque()
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

    def end_hold(self) -> None:
        """End `hold`."""
        self._held_until = 0.0
        self._write()

    def _hold_ends(self, held_until: float) -> None:
        if held_until == self._held_until:
            self.end_hold()

    async def call(self, *command: Any, mark: Mark | None = None, index: int = 0) -> Any:
        """Carry out a command; it has its place in the order before the first await.

        Raises:
            TransportDown: If the line is not open, or broke before the answer.
            ChannelLayerUnavailable: If the server refuses this command.
        """
        if not self._is_open:
            raise TransportDown("Redis is not connected")
        call = self._place(self._then, command)
        call.mark, call.index = mark, index
        try:
            return await call.answer
        except ResponseError as error:
            raise refusal(error, self.counters) from error

    def begin(self, *command: Any) -> asyncio.Future[Any]:
        """As `call`; the answer comes by the future, a refusal as `ResponseError`."""
        if not self._is_open:
            raise TransportDown("Redis is not connected")
        return self._place(self._then, command).answer

    async def call_first(self, *command: Any) -> Any:
        """As `call`, before all that waits, also while the line is being opened.

        Raises:
            ResponseError: If the server refuses this command.
        """
        if self._connection is None:
            raise TransportDown("Redis is not connected")
        return await self._place(self._first, command).answer

    def _place(self, lane: deque[_Call], command: Sequence[Word]) -> _Call:
        loop = asyncio.get_running_loop()
        call = _Call(pack(command), loop.create_future())
        is_busy = self._unanswered or self._first or self._then or self._held_until
        if self._connection is not None and not is_busy:
            # Nothing to be put together with: the commonest case, and the cheapest.
            self._note_written(call, loop.time())
            self._connection.write(call.data)
            return call
        lane.append(call)
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
        self, connection: RedisConnection, greet: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Carry out calls on this connection until it breaks, then close it.

        Args:
            greet: Runs beside; calls are taken once it has called `open`.

        Raises:
            Exception: Why it ended, unless cancelled.
        """
        connection.on_reply = self._take_reply
        self._connection = connection
        try:
            await run_until_one_fails(
                connection.serve(),
                watch_silence("Redis", self._silent, self.answer_seconds),
                greet(),
            )
        finally:
            self.shut()
            connection.close()

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
                call = lane.popleft()
                if call.answer.done():
                    continue
                taken.append(call.data)
                call.data = b""
                self._note_written(call, now)
        return b"".join(taken)

    def _take_reply(self, reply: Any) -> None:
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

    def _silent(self, now: float) -> float:
        return now - self._unanswered[0].written if self._unanswered else 0.0
