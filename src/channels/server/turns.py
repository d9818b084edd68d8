"""The end of the loop's turn, for all connections that have something to do then."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

logger: Final = logging.getLogger("django.channels.server")


class Turning(Protocol):
    """Who is called at the end of a turn."""

    def end_turn(self) -> None:
        """The turn in which it asked for this is over."""


class TurnEnds:
    """One callback of the loop for all who asked in its present turn, in that order.

    A message to a thousand connections asks a thousand times: a handle of the loop's own for each,
    with its copy of the context, cost a quarter of writing a ready frame.
    """

    __slots__ = ("_due", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Turning] = []

    def add(self, who: Turning) -> None:
        """Call `who.end_turn()` once this turn is over; who asks twice is called twice."""
        if not self._due:
            self._loop.call_soon(self._end)
        self._due.append(who)

    def _end(self) -> None:
        due, self._due = self._due, []
        for who in due:
            try:
                who.end_turn()
            except Exception:
                # The others' frames must leave all the same.
                logger.exception("Writing to a connection failed.")
