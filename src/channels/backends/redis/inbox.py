"""The reader of one process's inbox: a stream that keeps what was not read yet.

It knows how far it has read.  After a lost connection it goes on from there, and what it has read
is removed with a later command; so nothing is lost or left behind while the stream stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from channels.backends.redis.connection import RedisConnection, Word, pack
from channels.backends.redis.line import LONGEST_PAUSE
from channels.backends.shell import Backoff, Broken, run_until_one_fails, watch_silence

#: Entries taken with one command, after which the loop's others run.
BATCH: Final = 100
#: Milliseconds for which a read waits at the server.
BLOCK: Final = 4000
_START: Final = b"0-0"


class InboxReader:
    """Reads one stream for ever.

    Args:
        open_connection: Opens one to the server that holds the stream.
        on_frame: Takes each entry.
        answer_seconds: A read that is over its time by so much means a dead connection.
        keep: So many entries that were read may stay in the stream while there is traffic.
    """

    def __init__(
        self,
        open_connection: Callable[[], Any],
        key: str,
        on_frame: Callable[[bytes], None],
        answer_seconds: float,
        keep: int,
    ) -> None:
        self.reconnected = 0
        self.backoff = Backoff(longest=LONGEST_PAUSE)
        #: Whether the server removes entries below an id (Redis 6.2); else they go one by one.
        self.trims_by_id = False
        self._open = open_connection
        self._key = key
        self._on_frame = on_frame
        self._answer_seconds = answer_seconds
        self._asked = float("inf")
        self._read_head = _all_but_last(
            ("XREAD", "COUNT", BATCH, "BLOCK", BLOCK, "STREAMS", key, "")
        )
        self._last = _START
        self._keep = keep
        self._is_idle = False
        self._read: list[bytes] = []
        self._is_trimming = False
        #: True once this connection has brought something.
        self._is_of_use = False
        self._is_stale = asyncio.Event()
        self._connection: RedisConnection | None = None

    def restart(self) -> None:
        """The stream is a new one: read it from its beginning."""
        self._last = _START
        self._read.clear()
        self._is_stale.set()

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    async def serve(self) -> None:
        """Read over one connection, until that breaks."""
        connection = self._connection = await self._open()
        self._is_stale.clear()
        connection.on_reply = self._take
        self.backoff.made()
        self._is_of_use = False
        try:
            self._ask(connection)
            await run_until_one_fails(
                connection.serve(),
                watch_silence("Redis", self._silent, BLOCK / 1000 + self._answer_seconds),
                self._until_stale(),
            )
        finally:
            self._connection = None
            connection.close()

    def note_down(self, _error: BaseException) -> None:
        """Count that it reads no more for now."""
        self.reconnected += 1

    def _silent(self, now: float) -> float:
        return now - self._asked

    async def _until_stale(self) -> None:
        await self._is_stale.wait()
        raise Broken("the stream is a new one")

    def _ask(self, connection: RedisConnection | None) -> None:
        """Remove what was read and wait for more."""
        if connection is None or connection is not self._connection:
            return
        self._asked = asyncio.get_running_loop().time()
        trim: tuple[Word, ...] = ()
        if self._read and (self._is_idle or len(self._read) >= self._keep):
            trim = self._trim()
        data = b"%b$%d\r\n%b\r\n" % (self._read_head, len(self._last), self._last)
        self._is_trimming = bool(trim)
        connection.write(pack(trim) + data if trim else data)

    def _trim(self) -> tuple[Word, ...]:
        """The command that removes what was read."""
        if not self.trims_by_id:
            return ("XDEL", self._key, *self._read)
        time, _, number = self._last.partition(b"-")
        return ("XTRIM", self._key, "MINID", b"%b-%d" % (time, int(number) + 1))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        if self._is_trimming:
            self._is_trimming = False
            self._read.clear()
            return
        if not self._is_of_use:
            self._is_of_use = True
            self.backoff.reset()
        self._is_idle = not reply
        for _, entries in reply or ():
            for identity, fields in entries:
                self._last = identity
                self._read.append(identity)
                # Else deleted meanwhile, or put there by something else.
                if isinstance(fields, list) and len(fields) == 2:
                    self._on_frame(fields[1])
        # Who was woken by these runs first: the next read is under way while they work.
        asyncio.get_running_loop().call_soon(self._ask, self._connection)


def _all_but_last(command: Sequence[Word]) -> bytes:
    """A packed command up to its last word."""
    return pack(command).removesuffix(pack([command[-1]])[4:])
