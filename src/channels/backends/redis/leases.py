"""The readers of queues by lease: for each queue a task, and a connection that waits.

Redis cannot wait for an element without taking it.  So the connection moves the first element of
the list to where it is (BLMOVE, Redis 6.2), which waits until there is one and changes nothing.
Then a script takes it on lease.  A process that dies at any point has taken nothing, or on lease.
Before 6.2 the script is asked five times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from channels.backends.redis.held import HeldCalls
from channels.backends.redis.hosts import OwnConnection
from channels.backends.redis.line import Broken, Pause
from channels.backends.redis.packing import pack
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.contract import Leased

logger = logging.getLogger("channels.layers")

#: Seconds for which a look at the queue waits at the server.
BLOCK: Final = 4
#: Seconds between two looks where the server cannot wait.
POLL: Final = 0.2
#: Messages leased with one command at most.
BATCH: Final = 100

Taker = Callable[[Leased], None]


class LeaseReaders:
    """All readers by lease on one server.

    Args:
        answer_seconds: As for `InboxReader`.
    """

    def __init__(
        self,
        open_connection: Callable[..., Awaitable[OwnConnection]],
        calls: HeldCalls,
        ticker: Ticker,
        answer_seconds: float,
    ) -> None:
        #: Whether the server can wait for a queue (Redis 6.2).
        self.waits = False
        self.open_connection = open_connection
        self.calls = calls
        self.ticker = ticker
        self.answer_seconds = answer_seconds
        self.is_closing = False
        self._numbers = itertools.count(1)
        self._readers: dict[str, LeaseReader] = {}
        self._scope = TaskScope("readers by lease")

    def demand(self, queue: str, count: int, seconds: float, taker: Taker) -> None:
        """As `WorkQueue.demand`."""
        reader = self._readers.get(queue)
        if reader is None:
            if count <= 0:
                return
            reader = self._readers[queue] = LeaseReader(self, queue, taker)
            self._scope.spawn(reader.run(), name=f"leases of {queue}")
        reader.demand(count, seconds)

    def next_token(self) -> str:
        """Names a call, and with a number behind it each lease that it makes."""
        return f"{self.calls.session}:{next(self._numbers)}:"

    async def run(self) -> None:
        """Holds the readers until it is cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._scope.close()

    async def quiesce(self) -> None:
        """Take nothing more; what is being taken is put back."""
        self.is_closing = True
        for reader in self._readers.values():
            await reader.quiesce()

    def abandon(self) -> None:
        """Let go without the loop."""
        for reader in self._readers.values():
            reader.abandon()
        self._readers.clear()


class LeaseReader:
    """Takes from one queue as demanded."""

    def __init__(self, owner: LeaseReaders, queue: str, taker: Taker) -> None:
        self._owner = owner
        self._queue = queue
        self._taker = taker
        self._count = 0
        self._seconds = 0.0
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: (token, count) of a call whose answer has not come.
        self._asked: tuple[str, int] | None = None
        self._pause = Pause(random.random)
        self._connection: OwnConnection | None = None

    def demand(self, count: int, seconds: float) -> None:
        """Take so many from now on."""
        self._count, self._seconds = count, seconds
        self._changed.set()

    async def run(self) -> None:
        """Take until cancelled, through failures."""
        pause = self._pause
        try:
            while True:
                await self._until_demanded()
                try:
                    if not await self._take():
                        await self._wait()
                    pause.reset()
                    continue
                except (TransportDown, ChannelLayerUnavailable) as error:
                    logger.debug("Cannot take from %s: %s", self._queue, error)
                except (RedisError, OSError, Broken) as error:
                    logger.debug("The reader of %s lost its connection: %s", self._queue, error)
                    await self._disconnect()
                except Exception:
                    logger.exception("The reader of %s failed, and goes on", self._queue)
                    await self._disconnect()
                await pause.wait()
        finally:
            await self._disconnect()

    async def quiesce(self) -> None:
        """Wait for the answer that is on its way."""
        self._count = 0
        await self._idle.wait()

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        self._count = 0
        if connection is not None:
            connection.abandon()

    async def _until_demanded(self) -> None:
        while self._count <= 0 and self._asked is None:
            self._changed.clear()
            await self._changed.wait()

    async def _take(self) -> bool:
        """Lease what is wanted; false if there is nothing."""
        owner = self._owner
        if self._asked is None:
            self._asked = (owner.next_token(), min(BATCH, self._count))
        self._idle.clear()
        try:
            token, count = self._asked
            taken = await owner.calls.lease(self._queue, token, count, self._seconds)
            self._asked = None
            if taken:
                owner.ticker.due_in(self._seconds)
            if owner.is_closing:
                await self._put_back(taken)
                return True
            self._count -= len(taken)
            for leased in taken:
                self._taker(leased)
            return bool(taken)
        finally:
            self._idle.set()

    async def _put_back(self, taken: list[Leased]) -> None:
        with contextlib.suppress(TransportDown, ChannelLayerUnavailable):
            for leased in reversed(taken):
                await self._owner.calls.release(leased.token, 0.0, counted=False)

    async def _wait(self) -> None:
        """Until the queue has something, or some seconds have passed."""
        owner = self._owner
        if not owner.waits:
            await asyncio.sleep(POLL)
            return
        if self._connection is None:
            self._connection = await owner.open_connection()
            self._pause.made()
        key = owner.calls.keys.queue(self._queue)
        try:
            async with asyncio.timeout(BLOCK + owner.answer_seconds):
                self._connection.write(pack(("BLMOVE", key, key, "LEFT", "LEFT", BLOCK)))
                await self._connection.read_response(disable_decoding=True)
        except TimeoutError:
            raise Broken("Redis has not answered a read") from None
        except ResponseError as error:
            if "unknown command" in str(error).lower():
                owner.waits = False
            raise

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
