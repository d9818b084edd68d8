"""A node's connections to a database: made, held, and made again when they fail.

With each new pair of them the process's fence is raised, so that a batch which an old connection
left behind is either in the journal or never carried out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

from channels.backends.tables.calls import Result
from channels.backends.tables.transport import TableTransport
from channels.exceptions import ChannelsError
from channels.kit.tasks import TaskScope
from channels.layers.contract import TransportEvents

logger = logging.getLogger("channels.layers")

#: Seconds between attempts: the first, and the longest.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Registration:
    """What a process finds when it connects."""

    fence: int
    #: The last batch that was carried out, and what came of it.
    batch: int
    results: Mapping[int, Result]
    incarnation: str
    #: The highest id that was cleaned away from the log, and its last.
    horizon: int
    last: int


class TableSession:
    """Keeps a node connected; a subclass connects in `_hold` and lets go in `_close`.

    Args:
        errors: What its connections raise when they fail.
        name: For logs.
    """

    def __init__(
        self, transport: TableTransport, errors: tuple[type[Exception], ...], name: str
    ) -> None:
        self._transport = transport
        self._errors: tuple[type[Exception], ...] = (
            *errors,
            OSError,
            TimeoutError,
            ChannelsError,
        )
        self._name = name
        self._incarnation: str | None = None
        self._is_stopping = False
        self._pause = FIRST_PAUSE
        self._scope = TaskScope(name)
        self._events: TransportEvents
        self._node = ""

    def begin(self, node: str, events: TransportEvents) -> None:
        """Begin to connect."""
        self._node, self._events = node, events
        self._incarnation = None
        self._is_stopping = False
        self._scope = TaskScope(self._name)
        self._scope.spawn(self._run(), name=f"connections of {self._name}")

    async def stop(self, patience: float) -> None:
        """Send what waits and close; rudely after `patience` seconds."""
        self._is_stopping = True
        self._transport.readers.quiesce()
        self._transport.line.rouse()
        if not (self._transport.is_up and await self._scope.join(patience)):
            self._abort()
        await self._scope.close()
        self._transport.is_up = False

    @property
    def is_finishing(self) -> bool:
        """True once all that was to be sent has been."""
        return self._is_stopping and not self._transport.line.is_waiting

    # What a subclass does.

    async def _hold(self) -> None:
        """Connect, `_take_up`, `_go_up`, and `_serve` until that ends or fails."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Close what `_hold` has opened."""
        raise NotImplementedError

    def _abort(self) -> None:
        """Break the connections, if that can be done."""

    async def _interrupt(self, tasks: list[asyncio.Task[Any]]) -> None:
        """End what `_serve` has begun."""
        for task in tasks:
            task.cancel()

    # What is the same for all.

    async def _run(self) -> None:
        is_told_down = False
        while not self._is_stopping:
            error: BaseException | None = None
            was_up = False
            try:
                await self._hold()
            except self._errors as problem:
                error = problem
            except Exception as problem:
                # A mistake of ours must not end the process's messages for good; told once.
                if self._transport.is_up or not is_told_down:
                    logger.exception("The channel layer failed and connects again")
                error = problem
            finally:
                was_up, self._transport.is_up = self._transport.is_up, False
                await self._close()
            if self._is_stopping:
                return
            if was_up or not is_told_down:
                is_told_down = True
                self._events.on_down(error)
            await asyncio.sleep(self._pause * (0.5 + random.random() / 2))
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _take_up(self, found: Registration, cursor: int) -> Resumption:
        """Settle the batch whose answer was lost, and find where to read on."""
        self._transport.line.recover(found.batch, found.results)
        is_first = self._incarnation is None
        kept = self._incarnation == found.incarnation
        self._incarnation = found.incarnation
        missed = False
        if is_first:
            cursor = found.last
            self._transport.want_node(cursor)
        elif not kept:
            # A new log: the server lost the old one, or another has taken its place.  All of it
            # is new.
            cursor = 0
            self._transport.want_all()
        elif found.last < cursor:
            # The server lost the end of its log and will give out its ids again.
            cursor, missed = found.last, True
        else:
            missed = found.horizon > cursor
        return Resumption(cursor, is_first, kept, missed)

    def _go_up(self, resumption: Resumption) -> None:
        """Tell the node that calls may be made."""
        self._pause = FIRST_PAUSE
        self._transport.is_up = True
        self._events.on_up(resumption.kept)
        if resumption.missed:
            self._events.on_gap(None)

    async def _serve(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run these beside each other until the first of them ends; raises what that raised."""

        def seen(task: asyncio.Task[Any]) -> None:
            """Its error is raised below."""

        tasks = [self._scope.spawn(work, on_done=seen) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            first = next(task for task in tasks if task in done)
        finally:
            await self._interrupt(tasks)
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
        first.result()


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a process goes on after it has connected.

    Attributes:
        cursor: The id after which it reads on.
        is_first: It has just started.
        kept: The tables are those that it knew.
        missed: Something may have been cleaned away before it was read.
    """

    cursor: int
    is_first: bool
    kept: bool
    missed: bool
