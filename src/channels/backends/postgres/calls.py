"""What a process asks of a database, in order and in batches.

Each batch is a transaction that notes its results in the process's journal.  While one is under
way the next is gathered.  A batch whose answer was lost is looked up in the journal by the
connection that follows, and sent again only if it is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from channels.exceptions import ChannelLayerUnavailable

#: Calls and bytes of one batch.
BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
#: A deadline that never comes, in milliseconds.
NEVER: Final = 1 << 62

#: The two numbers that come of a call.
Numbers = tuple[int, int]

#: A message on lease: token of the call that leased it, id, attempts, payload.
LeasedRow = tuple[int, int, int, bytes]


def target_hash(prefix: str, kind: str, name: str) -> int:
    """What a group (g), node (n) or queue (q) is known by: a signed number of 64 bits."""
    data = f"{prefix}\0{kind}{name}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)


class Result(NamedTuple):
    """What came of a call: its two numbers, and what it leased."""

    first: int
    second: int
    leased: Sequence[LeasedRow] = ()


class Call(NamedTuple):
    """One element of a batch.

    kind                       hash    extra        number     deadline  result
    g   publish                group                           message's full, members
    n   push to a node         node                            message's 0, -1 full, -2 none
    q   push                   queue                capacity   message's 0, -1 full
    w   push later             queue   when         bound      message's 0, -1 full
    j   join                                                             the log's last id
    a   add a queue to a group group   queue's hash capacity   its end
    d   take it out            group   queue's hash
    l   lease                  queue   token        how many   a life    what was leased
    k   acknowledge            id      token                             1, 0 it was over
    r   release                id      token        pause                1, 0 it was over
    u   the same, uncounted    id      token        pause                1, 0 it was over
    e   extend                 id      token        a life               1, 0 it was over
    b   backlog                queue                                     how many, first deadline
    f   flush

    Pauses and lives are milliseconds, times the same by the tables' clock.
    """

    kind: str
    hash: int = 0
    extra: int = 0
    number: int = 0
    deadline: int = NEVER
    payload: bytes = b""


#: A call, and where its result goes.
_Asked = tuple[Call, asyncio.Future[Result]]


class CallQueue:
    """The calls of one process; it outlives its connections.

    Args:
        most: Calls that may wait.
    """

    def __init__(self, most: int) -> None:
        self.counters: Counter[str] = Counter()
        #: The number of the last batch.  It never goes back: the journal may hold an earlier one.
        self.number = 0
        self._most = most
        self._waiting: deque[_Asked] = deque()
        self._flight: list[_Asked] = []
        self._wake = asyncio.Event()

    def prepare(self) -> None:
        """Begin anew, on the running loop."""
        self._waiting.clear()
        self._flight = []
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flight)

    @property
    def is_waiting(self) -> bool:
        """True if there is something to send."""
        return bool(self._waiting)

    def put(self, call: Call) -> asyncio.Future[Result]:
        """Append a call; its place in the order is taken at once.

        Raises:
            ChannelLayerUnavailable: If too many wait.
        """
        if len(self._waiting) >= self._most:
            self.counters["refused_pending"] += 1
            raise ChannelLayerUnavailable(
                f"{len(self._waiting)} calls wait for the database already "
                f"(max_pending={self._most})."
            )
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        self._wake.set()
        return answer

    async def wait(self) -> None:
        """Until something waits, or `rouse` is called."""
        if not self._waiting:
            await self._wake.wait()
        self._wake.clear()

    def rouse(self) -> None:
        """End the wait."""
        self._wake.set()

    def gather(self) -> list[Call]:
        """The next batch, without the calls that were cancelled meanwhile."""
        assert not self._flight, "one batch at a time"
        self._wake.clear()
        size = 0
        while self._waiting and len(self._flight) < BATCH and size < BATCH_BYTES:
            call, answer = self._waiting.popleft()
            if not answer.cancelled():
                self._flight.append((call, answer))
                size += len(call.payload)
        self.number += 1
        self.counters["batches"] += 1
        return [call for call, _ in self._flight]

    def settle(self, results: Sequence[Numbers], leased: Sequence[LeasedRow] | None) -> None:
        """The batch under way has been carried out.

        Args:
            leased: What all its calls have leased; None: unknown, so they stay unsettled.
        """
        flight, self._flight = self._flight, []
        for (call, answer), numbers in zip(flight, results, strict=True):
            if answer.done() or (call.kind == "l" and leased is None):
                continue
            mine = [row for row in leased or () if row[0] == call.extra]
            answer.set_result(Result(*numbers, mine))

    def recover(self, number: int, results: Sequence[Numbers]) -> None:
        """A new connection has the journal: settle the batch whose answer was lost.

        What it has leased is asked for again: the same token gives the same messages.

        Args:
            number: The last batch that was carried out.
            results: What came of its calls.
        """
        again = self._flight
        if again and number == self.number:
            self.counters["recovered"] += len(again)
            self.settle(results, None)
            again = [asked for asked in again if not asked[1].done()]
        self._flight = []
        self._waiting.extendleft(reversed(again))
        if self._waiting:
            self._wake.set()


class TableLeases:
    """`LeaseCalls` on tables.

    Args:
        prefix: As for `TableTransport`.
    """

    notes_waiting: Final = False
    #: Calls may wait there for a connection.
    is_open: Final = True

    def __init__(self, calls: CallQueue, prefix: str) -> None:
        self._calls = calls
        self._prefix = prefix

    def new_token(self) -> int:
        """A token of 63 bits, not 0."""
        return (int.from_bytes(os.urandom(8)) >> 1) or 1

    def begin_lease(
        self, queue: str, token: int, count: int, seconds: float
    ) -> asyncio.Future[Result]:
        hashed = target_hash(self._prefix, "q", queue)
        return self._calls.put(Call("l", hashed, token, count, int(seconds * 1000)))

    def read_leases(self, answer: Result) -> list[tuple[bytes, bytes, int]]:
        return [
            (pack_token(token, number), payload, attempts)
            for token, number, attempts, payload in answer.leased
        ]

    async def release(self, token: bytes, delay: float, counted: bool) -> bool:
        kind, number = "r" if counted else "u", int(delay * 1000)
        return (await self._calls.put(Call(kind, *read_token(token), number))).first == 1


def pack_token(token: int, number: int) -> bytes:
    """The contract's token of a message on lease: the lease's token and the message's id."""
    return number.to_bytes(8) + token.to_bytes(8)


def read_token(token: bytes) -> tuple[int, int]:
    """The id and the token in it; zeros, which name no lease, for what is no token of ours."""
    if len(token) != 16 or token[0] >= 0x80 or token[8] >= 0x80:
        return 0, 0
    return int.from_bytes(token[:8]), int.from_bytes(token[8:])
