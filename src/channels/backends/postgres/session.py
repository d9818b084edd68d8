"""A process's connections to the tables: made, used, and made again when they fail.

With each new pair of them the process's fence is raised, so that a batch which an old connection
left behind is either in the journal or never carried out.

The tables have a clock of their own: the database's, and a shift that is stored with them.  A
process goes by it, and from look to look by its own monotonic clock.  If both differ by more than
`node_life`, the database's clock has stepped (a process that was paused for so long has lost its
row), and the shift is set so that the tables' clock goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine
from typing import Any, Final

from channels.backends.lease_reader import LeaseReader
from channels.backends.postgres.calls import CallQueue, target_hash
from channels.backends.postgres.options import TableOptions
from channels.backends.postgres.readers import TableLeases
from channels.backends.postgres.table_store import DUE, Refused, TablesReplaced, TableStore
from channels.backends.shell import Backoff, Supervisor
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelsError
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import TransportEvents

#: Seconds of silence after which an empty batch says that this process lives.
HEARTBEAT: Final = 5.0
#: How often a batch is tried that the database refuses.
ATTEMPTS: Final = 3


class PostgresSession:
    """Keeps one process connected, and runs its writer, its reader and its ticker.

    Attributes:
        is_up: Whether calls may be made.
        wanted: What is read: hash of a group or node -> the id after which it counts.
        clock_offset: As `Bus.clock_offset`.
    """

    def __init__(
        self, store: TableStore, options: TableOptions, calls: CallQueue, prefix: str
    ) -> None:
        self.is_up = False
        self.wanted: dict[int, int] = {}
        self.clock_offset = wall_ahead()
        self.calls = calls
        self.ticker = Ticker()
        self.readers: LeaseReader
        self._prefix = prefix
        self._store = store
        self._options = options
        self._errors: tuple[type[Exception], ...] = (*store.errors, OSError, ChannelsError)
        self._scope = TaskScope(store.name)
        self._is_stopping = self._is_broken = False
        self._shift = self._failures = 0
        self._backoff: Backoff
        self._events: TransportEvents
        self._node = ""
        self._node_hash = 0
        self._reset()

    def _reset(self) -> None:
        self.is_up = False
        self.wanted.clear()
        self.readers = LeaseReader(TableLeases(self.calls, self._prefix), self.ticker)
        self._incarnation: str | None = None
        #: The id up to which the log was read, and up to which a loss was told.
        self._cursor = self._told = 0

    def start(self, node: str, node_hash: int, events: TransportEvents) -> None:
        """Begin to connect."""
        self._store.check()
        self._node, self._node_hash, self._events = node, node_hash, events
        self._reset()
        self.calls.prepare()
        self._is_stopping = False
        self._scope = TaskScope(self._store.name)
        supervisor = Supervisor(
            self._store.name, self._connect_and_serve, self._errors, events.on_down
        )
        self._backoff = supervisor.backoff
        self._scope.spawn(supervisor.run(), name=f"connections of {self._store.name}")

    async def stop(self, patience: float) -> None:
        """Send what waits and close; after `patience` seconds break the connections instead."""
        until = asyncio.get_running_loop().time() + patience
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until if self.is_up else 0.0):
                await self.readers.quiesce()
        self._is_stopping = True
        self.calls.rouse()
        if not (self.is_up and await self._scope.join(until - asyncio.get_running_loop().time())):
            self._break()
        await self._scope.close()
        self._reset()

    def abandon(self) -> None:
        """As `Bus.abandon`."""
        self._store.abandon()
        self._reset()

    @property
    def is_finishing(self) -> bool:
        """True once `stop` was called and no call waits."""
        return self._is_stopping and not self.calls.is_waiting

    def now(self) -> int:
        """Milliseconds by the tables' clock."""
        return int((time.monotonic() + self.clock_offset) * 1000)

    # Connecting.

    async def _connect_and_serve(self) -> None:
        self._is_broken = False
        try:
            await self._store.open()
            await self._serve(*await self._introduce())
        except self._errors:
            if not self._is_stopping:
                raise
        finally:
            self.is_up = False
            await self._store.close()

    async def _introduce(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Register this process; returns what runs from then on."""
        began = time.monotonic()
        found = await self._store.register(self._node)
        self._take_time(began, found.now, found.shift)
        # The batch whose answer was lost.
        self.calls.recover(found.batch, found.results)
        kept = self._incarnation == found.incarnation
        is_first, self._incarnation = self._incarnation is None, found.incarnation
        has_lost_end = kept and found.last < self._cursor
        if is_first:
            self._cursor = found.last
        elif has_lost_end or not kept:
            # The server lost the log's end, and gives out its ids again; or it lost all of it, or
            # another log has taken its place.  What follows is new.
            self._cursor = found.last if kept else 0
            self.wanted.update(dict.fromkeys(self.wanted, self._cursor))
        self.wanted.setdefault(self._node_hash, self._cursor)
        self._told = self._cursor
        self._backoff.reset()
        self.is_up = True
        self._events.on_up(kept)
        if has_lost_end:
            self._events.on_gap(None)
        return self._write(found.fence), self._read(), self.ticker.run(self._tick)

    async def _serve(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run these coroutines until the first of them ends, and raise what it raised."""

        def seen(task: asyncio.Task[Any]) -> None:
            """Its error is raised below."""

        tasks = [self._scope.spawn(work, on_done=seen) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in tasks if task in done)
        finally:
            # Not cancelled: drivers would ask the server first, which may not answer.
            self._break()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        first.result()

    def _break(self) -> None:
        """Break the connections, and wake every task that uses them."""
        self._is_broken = True
        self._store.abort()
        self.calls.rouse()
        self.ticker.due_in(0.0)

    # The tables' clock.

    def _take_time(self, began: float, now: int, shift: int) -> None:
        self.clock_offset = now / 1000 - (began + time.monotonic()) / 2
        self._shift = shift

    async def _compare_clocks(self) -> None:
        began = time.monotonic()
        now, shift = await self._store.clock()
        step = now - self.now()
        if shift == self._shift and abs(step) > self._options.node_life * 1000:
            await self._store.set_shift(shift, shift - step)
        else:
            self._take_time(began, now, shift)

    # Writing.

    async def _write(self, fence: int) -> None:
        loop, options, calls = asyncio.get_running_loop(), self._options, self.calls
        beat_at = clock_at = loop.time() + HEARTBEAT
        # Not before the clocks were compared: had the database's stepped just before this process
        # connected, the others have set the shift by then.
        clean_at = clock_at + random.random() * options.clean_interval
        while not self.is_finishing and not self._is_broken:
            if not calls.is_waiting:
                await calls.wait(min(beat_at, clean_at) - loop.time())
            began = loop.time()
            # A call that was cancelled may have ended the wait: then there is nothing to do.
            if calls.is_waiting or began >= beat_at:
                await self._flush(fence)
                beat_at = loop.time() + HEARTBEAT
            if loop.time() >= clock_at:
                await self._compare_clocks()
                clock_at = loop.time() + HEARTBEAT
            if loop.time() >= clean_at:
                count, is_more = await self._store.clean(self.now(), int(options.node_life * 1000))
                calls.counters["cleaned"] += count
                clean_at = loop.time() + (0.1 if is_more else options.clean_interval)
            # Yield once at least: `settle` has handed out leases, and some are released at once.
            await asyncio.sleep(max(0.0, began + options.flush_interval - loop.time()))
        if not self._is_broken:
            await self._store.leave(self._node, fence)

    async def _flush(self, fence: int) -> None:
        flight = self.calls.gather()
        try:
            results, leased = await self._store.write(
                self._node, fence, self.calls.number, self.now(), flight
            )
        except Refused as error:
            # Trying for ever would stop all that comes after it.
            self._failures += 1
            if self._failures >= ATTEMPTS:
                self._failures = 0
                self.calls.reject(error)
            raise
        self._failures = 0
        self.calls.settle(results, leased)

    async def _tick(self) -> float | None:
        wait, run_out = await self._store.tick(self.now())
        self.calls.counters["leases_run_out"] += run_out
        return None if wait is None else wait / 1000

    # Reading.

    async def _read(self) -> None:
        hashes: set[int] | None = None
        while not self._is_broken:
            if hashes is None or hashes & self.wanted.keys():
                await self._catch_up()
            if hashes is not None and DUE in hashes:
                self.ticker.due_in(0.0)
            self._look_at_queues(hashes)
            hashes = await self._store.wait(self.wanted)

    def _look_at_queues(self, hashes: set[int] | None) -> None:
        if hashes is None:
            self.readers.resume()
            return
        for name in self.readers.names:
            if target_hash(self._prefix, "q", name) in hashes:
                self.readers.woken(name)

    async def _catch_up(self) -> None:
        """Read what has come, page by page."""
        is_last = False
        while not is_last:
            page = await self._store.read(self._cursor, self.wanted)
            if page.incarnation != self._incarnation or page.last < self._cursor:
                raise TablesReplaced("the tables of the channel layer were made anew")
            if page.horizon > max(self._cursor, self._told):
                # This process was paused, and some of what it had not read has expired.
                self._told = page.horizon
                self._events.on_gap(None)
            self._cursor = page.cursor
            for number, hashed, payload in page.rows:
                floor = self.wanted.get(hashed)
                if floor is not None and number > floor:
                    self.calls.counters["read"] += 1
                    self._events.on_frame(payload)
            if page.is_due:
                self.ticker.due_in(0.0)
            is_last = page.is_last
