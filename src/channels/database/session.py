"""A process's two threads: one writes, one reads; held, and replaced when the database fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Any, Final

from django.db import DatabaseError, Error

from channels.database.options import DatabaseOptions
from channels.database.store import CLEAN_BATCH, LogRow, Store
from channels.database.threads import WorkThread
from channels.exceptions import ChannelsError
from channels.kit.tasks import TaskScope
from channels.layers.tables.transport import TableTransport
from channels.layers.transport import TransportEvents

logger = logging.getLogger("channels.layers")

#: Seconds between attempts: the first, and the longest.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0
#: Seconds of silence after which a process says that it lives.
HEARTBEAT: Final = 5.0
#: How often a batch is tried that the database refuses.
ATTEMPTS: Final = 5

_ERRORS: Final = (Error, OSError, TimeoutError, ChannelsError)


class Session:
    """Keeps a node connected."""

    def __init__(self, store: Store, options: DatabaseOptions, transport: TableTransport) -> None:
        self.cursor = 0
        self._store = store
        self._options = options
        self._transport = transport
        self._incarnation: str | None = None
        self._is_stopping = False
        self._pause = FIRST_PAUSE
        self._failures = 0
        self._threads: list[WorkThread] = []
        self._scope = TaskScope("channel layer in the database")
        self._news = asyncio.Event()
        self._events: TransportEvents
        self._node = ""

    def start(self, node: str, events: TransportEvents) -> None:
        self._node, self._events = node, events
        self._incarnation = None
        self._is_stopping = False
        self._news = asyncio.Event()
        self._scope = TaskScope("channel layer in the database")
        self._scope.spawn(self._run(), name="connections to the database")

    async def stop(self, patience: float) -> None:
        """Send what waits and close; rudely after `patience` seconds."""
        self._is_stopping = True
        self._transport.line.rouse()
        if self._transport.is_up:
            await self._scope.join(patience)
        await self._scope.close()
        self._transport.is_up = False

    def abandon(self) -> None:
        self._transport.is_up = False
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()

    async def _run(self) -> None:
        is_told_down = False
        while not self._is_stopping:
            error: BaseException | None = None
            was_up = False
            try:
                await self._hold()
            except _ERRORS as problem:
                error = problem
            except Exception as problem:
                # A mistake of ours must not end the process's messages for good.
                logger.exception("The channel layer failed and connects again")
                error = problem
            finally:
                was_up, self._transport.is_up = self._transport.is_up, False
                await self._end_threads()
            if self._is_stopping:
                return
            if was_up or not is_told_down:
                is_told_down = True
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    async def _end_threads(self) -> None:
        """With their connections.  One that hangs is left behind; its fence holds it off."""
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()
        for thread in threads:
            await thread.ended(0.2)

    async def _do(self, thread: WorkThread, job: Any, *arguments: Any) -> Any:
        async with asyncio.timeout(self._options.answer_timeout):
            return await thread.do(job, *arguments)

    async def _hold(self) -> None:
        """Connect, and serve until the database fails or the end has come."""
        store = self._store
        self._threads = [
            WorkThread("channels-database-write", store.close),
            WorkThread("channels-database-read", store.close),
        ]
        writer, reader = self._threads
        for thread in self._threads:
            await self._do(thread, store.open)
        await self._do(writer, store.tables.create, store.alias, self._options.create_tables)
        found = await self._do(writer, store.register, self._node)
        self._transport.line.recover(found.batch, found.results)
        is_first = self._incarnation is None
        kept = self._incarnation == found.incarnation
        self._incarnation = found.incarnation
        missed = kept and (found.horizon > self.cursor or found.last < self.cursor)
        if is_first:
            self._transport.want_node(found.last)
            self.cursor = found.last
        elif not kept:
            # New tables: all that is in them is new.
            self._transport.want_all()
            self.cursor = 0
        elif found.last < self.cursor:
            self.cursor = found.last
        self._pause = FIRST_PAUSE
        self._transport.is_up = True
        self._events.on_up(kept)
        if missed:
            self._events.on_gap(None)
        await self._serve(writer, found.fence, reader)

    async def _serve(self, writer: WorkThread, fence: int, reader: WorkThread) -> None:
        def seen(task: asyncio.Task[Any]) -> None:
            """Its error is raised below."""

        tasks = [
            self._scope.spawn(self._write(writer, fence), name="writer", on_done=seen),
            self._scope.spawn(self._read(reader), name="reader", on_done=seen),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        next(iter(done)).result()

    async def _write(self, thread: WorkThread, fence: int) -> None:
        loop, line, options = asyncio.get_running_loop(), self._transport.line, self._options
        clean_at = loop.time() + random.random() * options.clean_interval
        while not (self._is_stopping and not line.is_waiting):
            if not line.is_waiting:
                await line.wait(min(HEARTBEAT, clean_at - loop.time()))
            if line.is_waiting:
                await self._flush(thread, fence)
            elif not self._is_stopping:
                await self._do(thread, self._store.touch, self._node, fence)
            if loop.time() >= clean_at:
                count = await self._do(thread, self._store.clean, options.node_life)
                line.counters["cleaned"] += count
                clean_at = loop.time() + (0.1 if count >= CLEAN_BATCH else options.clean_interval)
        await self._do(thread, self._store.leave, self._node, fence)

    async def _flush(self, thread: WorkThread, fence: int) -> None:
        line = self._transport.line
        calls = line.gather()
        try:
            if all(call.kind == "p" for call in calls):
                # Most looks at queues find nothing: no need to take the counter's row.
                hashes = {call.hash for call in calls}
                if not await self._do(thread, self._store.has_any, hashes):
                    line.settle({})
                    return
            results, last = await self._do(
                thread, self._store.write, self._node, fence, line.number, calls
            )
        except DatabaseError as error:
            self._failures += 1
            if self._failures >= ATTEMPTS:
                self._failures = 0
                line.reject(error)
            raise
        self._failures = 0
        line.settle(results)
        if last > self.cursor:
            self._news.set()

    async def _read(self, thread: WorkThread) -> None:
        """Look for what has come: soon again after traffic, later and later without."""
        options = self._options
        pause = options.poll_shortest
        while True:
            self._news.clear()
            last = await self._do(thread, self._store.last)
            if last > self.cursor:
                await self._read_to(thread, last)
                self._transport.woken(None)
                pause = options.poll_shortest
            else:
                pause = min(options.poll_longest, pause * 1.3)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _read_to(self, thread: WorkThread, last: int) -> None:
        """Read on from the cursor, page by page."""
        wanted, read = self._transport.wanted, self._store.read
        while self.cursor < last:
            asked = frozenset(wanted)
            upto, rows = await self._do(thread, read, self.cursor, last, asked)
            # What was joined while this was read may be in it, too.
            while new := wanted.keys() - asked:
                upto, more = await self._do(thread, read, self.cursor, upto, new)
                rows = sorted([row for row in rows if row[0] <= upto] + more)
                asked |= new
            self.cursor = upto
            self._hand_out(rows)

    def _hand_out(self, rows: list[LogRow]) -> None:
        for number, hashed, payload in rows:
            floor = self._transport.wanted.get(hashed)
            if floor is not None and number > floor:
                self._transport.counters["read"] += 1
                self._events.on_frame(payload)
