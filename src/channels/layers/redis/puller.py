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
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from channels.layers.redis.hosts import OwnConnection
from channels.layers.redis.keys import Keys
from channels.layers.redis.line import Broken, Pause
from channels.layers.redis.packing import Word, pack

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
        self._is_woken = False
        self._connection: OwnConnection | None = None

    def demand(self, queue: str, count: int) -> None:
        """As `Transport.demand`."""
        if count > 0:
            self._demand[queue] = count
        else:
            self._demand.pop(queue, None)
        self._changed.set()
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
        pause = Pause(random.random)
        while True:
            await self._until_demanded()
            try:
                connection = self._connection = await self._open()
                try:
                    await self._serve(connection, pause)
                finally:
                    self._asked, self._is_woken, self._connection = None, False, None
                    await connection.disconnect(nowait=True)
            except ResponseError as error:
                # It has the release but not the command, or its rules forbid that.
                level = logging.DEBUG if self.takes_many else logging.WARNING
                logger.log(level, "Redis refuses to read queues: %s", error)
                self.takes_many = False
            except (RedisError, OSError, Broken) as error:
                logger.debug("The queue reader lost its connection: %s", error)
            except Exception:
                logger.exception("The queue reader failed, and goes on")
            await pause.wait()

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

    async def _serve(self, connection: OwnConnection, pause: Pause) -> None:
        while True:
            await self._until_demanded()
            reply = await self._ask(connection)
            pause.reset()
            if reply:
                self._take(reply)

    async def _ask(self, connection: OwnConnection) -> Any:
        queues = list(self._demand)
        keys = [self._wake_key, *map(self._keys.queue, queues)]
        command: tuple[Word, ...]
        if self.takes_many:
            # Of the first that has something; so no more than each of them is wanted for.
            count = min(BATCH, *self._demand.values())
            command = ("BLMPOP", BLOCK, len(keys), *keys, "LEFT", "COUNT", count)
        else:
            command = ("BLPOP", *keys, BLOCK)
        self._asked = set(queues)
        self._idle.clear()
        try:
            async with asyncio.timeout(BLOCK + self._answer_seconds):
                connection.write(pack(command))
                return await connection.read_response(disable_decoding=True)
        except TimeoutError:
            raise Broken("Redis has not answered a read") from None
        finally:
            self._asked = None
            self._idle.set()

    def _take(self, reply: Any) -> None:
        key, found = reply
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
