"""A process's two threads: one writes, one reads; held, and replaced when the database fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from typing import Any, Final

from django.db import Error

from channels.backends.database.options import DatabaseOptions
from channels.backends.database.store import CLEAN_BATCH, LogRow, Refused, Store
from channels.backends.database.threads import WorkThread
from channels.backends.tables.session import TableSession
from channels.backends.tables.transport import TableTransport
from channels.layers.contract import TransportEvents

#: Seconds of silence after which a process says that it lives.
HEARTBEAT: Final = 5.0
#: How often a batch is tried that the database refuses.
ATTEMPTS: Final = 5


class Session(TableSession):
    """Keeps a node connected, with a thread for each of a writer and a reader."""

    def __init__(self, store: Store, options: DatabaseOptions, transport: TableTransport) -> None:
        super().__init__(transport, (Error,), "channel layer in the database")
        self.cursor = 0
        self._store = store
        self._options = options
        self._failures = 0
        self._threads: list[WorkThread] = []
        self._news = asyncio.Event()

    def start(self, node: str, events: TransportEvents) -> None:
        """Begin to connect."""
        self._news = asyncio.Event()
        self.begin(node, events)

    def abandon(self) -> None:
        self._transport.is_up = False
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.end()

    async def _close(self) -> None:
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
        resumption = self._take_up(found, self.cursor)
        self.cursor = resumption.cursor
        self._go_up(resumption)
        await self._serve(
            self._write(writer, found.fence),
            self._read(reader),
            self._transport.ticker.run(partial(self._tick, writer)),
        )

    async def _tick(self, thread: WorkThread) -> float | None:
        wait: float | None
        wait, run_out, last = await self._do(thread, self._store.tick)
        self._transport.counters["leases_run_out"] += run_out
        if last > self.cursor:
            self._news.set()
        return wait

    async def _write(self, thread: WorkThread, fence: int) -> None:
        loop, line, options = asyncio.get_running_loop(), self._transport.line, self._options
        clean_at = loop.time() + random.random() * options.clean_interval
        while not self.is_finishing:
            if not line.is_waiting:
                await line.wait(min(HEARTBEAT, clean_at - loop.time()))
            if line.is_waiting:
                await self._flush(thread, fence)
                # What was taken for readers that have gone comes back.
                await asyncio.sleep(0)
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
            if all(call.kind in "pl" for call in calls):
                # Most looks at queues find nothing: no need to take the counter's row.
                hashes = {call.hash for call in calls}
                if not await self._do(thread, self._store.has_any, hashes):
                    line.settle({})
                    return
            results, last = await self._do(
                thread, self._store.write, self._node, fence, line.number, calls
            )
        except Refused as error:
            # Trying for ever would stop all that comes after it.
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
