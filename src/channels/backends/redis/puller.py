"""The reader of queues: one connection that waits for all queues with readers here.

It takes no more than readers wait for (BLMPOP, Redis 7; BLPOP, one by one, before).  When readers
come or go it is woken by an element in a list of its own, so that it never takes what nobody
wants and its connection is never cut for it.

A message leaves Redis with the answer to the read: at most once.  What is in an answer when the
connection breaks is lost; that is at most one message for each reader that waited.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from channels.backends.redis.hosts import OwnConnection
from channels.backends.redis.keys import Keys
from channels.backends.redis.line import Broken, Pause, run_until_one_fails
from channels.backends.redis.packing import Word, pack

logger = logging.getLogger("channels.layers")

#: Seconds for which a read waits at the server.
BLOCK: Final = 4
#: Messages taken with one command at most.
BATCH: Final = 100


class QueueReader:
    """Takes from queues as demanded.

    Args:
        on_pulled: Takes (queue, envelope).
        wake: Puts an element into the wake list; does not wait.
        answer_seconds: As for `InboxReader`.
    """

    def __init__(
        self,
        open_connection: Callable[[], Any],
        keys: Keys,
        session: str,
        on_pulled: Callable[[str, bytes], None],
        wake: Callable[[], None],
        answer_seconds: float,
    ) -> None:
        #: Whether the server is known to have BLMPOP.
        self.takes_many = False
        self._open = open_connection
        self._keys = keys
        self._wake_key = keys.wake(session)
        self._on_pulled = on_pulled
        self._wake = wake
        self._answer_seconds = answer_seconds
        self._demand: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        #: What the read that waits now was asked for; None: no read waits.
        self._asked: set[str] | None = None
        self._asked_at = 0.0
        self._is_woken = False
        self._pause = Pause(random.random)
        self._connection: OwnConnection | None = None

    def demand(self, queue: str, count: int) -> None:
        """As `Transport.demand`."""
        if count > 0:
            self._demand[queue] = count
        else:
            self._demand.pop(queue, None)
        self._changed.set()
        if self._asked is None:
            self._ask()
        else:
            self.wake_if_stale()

    def wake_if_stale(self) -> None:
        """End the read that waits if it waits for other queues than it should."""
        if self._asked is not None and self._asked != self._demand.keys() and not self._is_woken:
            self._is_woken = True
            self._wake()

    def wake_lost(self) -> None:
        """The element could not be put there; `wake_if_stale` tries again."""
        self._is_woken = False

    async def run(self) -> None:
        """Read until cancelled, through failures; connects when there is demand."""
        while True:
            await self._until_demanded()
            try:
                connection = await self._open()
                self._pause.made()
                await self._serve(connection)
            except ResponseError as error:
                # It has the release but not the command, or its rules forbid that.
                level = logging.DEBUG if self.takes_many else logging.WARNING
                logger.log(level, "Redis refuses to read queues: %s", error)
                self.takes_many = False
            except (RedisError, OSError, Broken) as error:
                logger.debug("The queue reader lost its connection: %s", error)
            except Exception:
                logger.exception("The queue reader failed, and goes on")
            await self._pause.wait()

    async def quiesce(self) -> None:
        """End the read that waits, so that none of its answer is lost when it is cancelled."""
        self._demand.clear()
        self.wake_if_stale()
        await self._idle.wait()

    def abandon(self) -> None:
        """Let go without the loop."""
        connection, self._connection = self._connection, None
        self._demand.clear()
        if connection is not None:
            connection.abandon()

    async def _until_demanded(self) -> None:
        while not self._demand:
            self._changed.clear()
            await self._changed.wait()

    async def _serve(self, connection: OwnConnection) -> None:
        self._connection = connection
        connection.take_over(self._take)
        try:
            self._ask()
            await run_until_one_fails(connection.serve(self._take), self._watch())
        finally:
            self._asked, self._is_woken, self._connection = None, False, None
            self._idle.set()
            await connection.disconnect(nowait=True)

    async def _watch(self) -> None:
        """Find out a connection that is silently dead."""
        while True:
            await asyncio.sleep(self._answer_seconds / 4)
            silent = time.monotonic() - self._asked_at
            if self._asked is not None and silent > BLOCK + self._answer_seconds:
                raise Broken("Redis has not answered a read")

    def _ask(self) -> None:
        """Wait for what is in demand, unless a read waits already."""
        if self._connection is None or self._asked is not None or not self._demand:
            return
        queues = list(self._demand)
        keys = [self._wake_key, *map(self._keys.queue, queues)]
        command: tuple[Word, ...]
        if self.takes_many:
            # Of the first that has something; so no more than each of them is wanted for.
            count = min(BATCH, *self._demand.values())
            command = ("BLMPOP", BLOCK, len(keys), *keys, "LEFT", "COUNT", count)
        else:
            command = ("BLPOP", *keys, BLOCK)
        self._asked, self._asked_at = set(queues), time.monotonic()
        self._idle.clear()
        self._connection.write(pack(command))

    def _take(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise reply
        self._asked = None
        self._idle.set()
        self._pause.reset()
        if reply:
            self._hand_out(*reply)
        # Who was woken by it runs first, and may ask for more.
        asyncio.get_running_loop().call_soon(self._ask)

    def _hand_out(self, key: bytes, found: bytes | list[bytes]) -> None:
        if key == self._wake_key.encode():
            self._is_woken = False
            return
        queue = self._keys.queue_name(key)
        taken = found if isinstance(found, list) else [found]
        left = self._demand.pop(queue, 0) - len(taken)
        if left > 0:
            # To the end: Redis looks at the queues in the order in which they are named.
            self._demand[queue] = left
        for data in taken:
            self._on_pulled(queue, data)
