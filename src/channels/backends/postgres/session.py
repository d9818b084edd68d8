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
from collections.abc import Collection, Coroutine
from typing import Any, Final

from channels.backends.lease_reader import LeaseReader
from channels.backends.postgres.calls import CallQueue, TableLeases, target_hash
from channels.backends.postgres.options import TableOptions
from channels.backends.postgres.table_store import DUE, TablesReplaced, TableStore
from channels.backends.shell import Backoff, Supervisor
from channels.backends.ticker import Ticker
from channels.exceptions import ChannelsError
from channels.kit.clock import wall_ahead
from channels.kit.tasks import TaskScope
from channels.layers.contract import TransportEvents

#: Seconds between two words of this process that it lives, and two comparisons of clocks.
HEARTBEAT: Final = 5.0
#: Entries of one page of the log; most of them are other processes' and come without payload.
PAGE: Final = 100
#: Expired rows deleted in one go.
CLEANED: Final = 500
#: Messages that are due and moved in one go.
MOVED: Final = 100


class PostgresSession:
    """Keeps one process connected, and runs its writer, its reader and its ticker.

    Attributes:
        is_up: Whether calls may be made.
        wanted: What is read: hash of a group or node -> the id after which it counts.
        clock_offset: As `Bus.clock_offset`.
    """

    def __init__(
        self, store: TableStore[Any], options: TableOptions, calls: CallQueue, prefix: str
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
        self._shift = 0
        #: When clocks are compared, and when expired messages are looked for.
        self._beat_at = self._clean_at = 0.0
        self._backoff: Backoff
        self._events: TransportEvents
        self._node = 0
        self._reset()

    def _reset(self) -> None:
        self.is_up = False
        self.wanted.clear()
        self.readers = LeaseReader(TableLeases(self.calls, self._prefix), self.ticker)
        self._incarnation: str | None = None
        #: The id up to which the log was read, and up to which a loss was told.
        self._cursor = self._told = 0

    def start(self, node: int, events: TransportEvents) -> None:
        """Begin to connect, as the node of this hash."""
        self._store.check()
        self._node, self._events = node, events
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
        ((fence, batch, firsts, seconds, incarnation, last, now, shift),) = await self._store.ask(
            "register", self._node
        )
        self._take_time(began, now, shift)
        # The batch whose answer was lost.
        self.calls.recover(batch, list(zip(firsts, seconds, strict=True)))
        kept = self._incarnation == incarnation
        is_first, self._incarnation = self._incarnation is None, incarnation
        has_lost_end = kept and last < self._cursor
        if is_first:
            self._cursor = last
        elif has_lost_end or not kept:
            # The server lost the log's end, and gives out its ids again; or it lost all of it, or
            # another log has taken its place.  What follows is new.
            self._cursor = last if kept else 0
            self.wanted.update(dict.fromkeys(self.wanted, self._cursor))
        self.wanted.setdefault(self._node, self._cursor)
        self._told = self._cursor
        self._backoff.reset()
        self._beat_at = time.monotonic() + HEARTBEAT
        # Not before the clocks were compared: had the database's stepped just before this process
        # connected, the others have set the shift by then.
        self._clean_at = self._beat_at + random.random() * self._options.clean_interval
        self.is_up = True
        self._events.on_up(kept)
        if has_lost_end:
            self._events.on_gap(None)
        return self._write(fence), self._read(), self.ticker.run(self._tick)

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
        rows = await self._store.ask("clock")
        if not rows:
            raise TablesReplaced("the tables of the channel layer are empty")
        now, shift = rows[0]
        step = now - self.now()
        if shift == self._shift and abs(step) > self._options.node_life * 1000:
            await self._store.ask("set_shift", shift - step, shift)
        else:
            self._take_time(began, now, shift)

    # Writing.

    async def _write(self, fence: int) -> None:
        calls = self.calls
        while not self._is_broken and (calls.is_waiting or not self._is_stopping):
            await calls.wait()
            # One that the database refuses is tried until its callers have given up.
            batch = calls.gather()
            done = await self._store.write(self._node, fence, calls.number, self.now(), batch)
            calls.settle(*done)
            # Yield: `settle` has handed out leases, and some are released at once.
            await asyncio.sleep(0)
        if not self._is_broken:
            await self._store.ask("leave", self._node, fence)

    async def _tick(self) -> float:
        """Do what has to be done in time; gives the seconds until the next."""
        counters, life = self.calls.counters, int(self._options.node_life * 1000)
        ((wait, run_out),) = await self._store.ask("tick", self.now(), MOVED)
        counters["leases_run_out"] += run_out
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + HEARTBEAT
            await self._compare_clocks()
            # A batch, if an empty one, says that this process lives.
            self.calls.rouse()
        if time.monotonic() >= self._clean_at:
            ((count,),) = await self._store.ask("clean", self.now(), life, CLEANED)
            counters["cleaned"] += count
            pause = 0.1 if count >= CLEANED else self._options.clean_interval
            self._clean_at = time.monotonic() + pause
        until = min(self._beat_at, self._clean_at) - time.monotonic()
        return until if wait is None else min(until, wait / 1000)

    # Reading.

    async def _read(self) -> None:
        hashes: set[int] | None = None
        while not self._is_broken:
            if hashes is None:
                await self._catch_up(self.wanted)
                self.readers.resume()
            else:
                if named := hashes & self.wanted.keys():
                    await self._catch_up(named)
                if DUE in hashes:
                    self.ticker.due_in(0.0)
                for name in self.readers.names:
                    if target_hash(self._prefix, "q", name) in hashes:
                        self.readers.woken(name)
            hashes = await self._store.wait()

    async def _catch_up(self, named: Collection[int]) -> None:
        """Read what follows the cursor, page by page; `named` is what is said to have news."""
        is_last = False
        while not is_last:
            rows = await self._store.ask("page", list(named), self._cursor, PAGE)
            if not rows:
                raise TablesReplaced("the tables of the channel layer are empty")
            incarnation, horizon, last, *_ = rows[0]
            if incarnation != self._incarnation or last < self._cursor:
                raise TablesReplaced("the tables of the channel layer were made anew")
            if horizon > max(self._cursor, self._told):
                # This process was paused, and some of what it had not read has expired.
                self._told = horizon
                self._events.on_gap(None)
            is_last = len(rows) < PAGE
            for *_, number, hashed, payload in rows:
                if number is None:
                    break
                if self.wanted.get(hashed, number) < number:
                    if payload is None:
                        # It came after the news: read on from here, with all that is wanted.
                        named, is_last = self.wanted, False
                        break
                    self.calls.counters["read"] += 1
                    self._events.on_frame(payload)
                self._cursor = number
