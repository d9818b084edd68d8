"""What a session asks of a database: the contract of PostgreSQL's and of Django's statements."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from channels.backends.postgres.calls import Call, LeasedRow, Numbers
from channels.exceptions import ChannelsError

#: In place of a hash: there is something for a tick.
DUE: Final = 0


class TablesReplaced(ChannelsError):
    """The tables were emptied or made anew under a process."""


class TableConnection(Protocol):
    """One of a store's connections."""

    async def close(self) -> None: ...

    def abort(self) -> None:
        """Fail what is under way, and what follows."""

    def abandon(self) -> None:
        """Close the descriptors, in a forked child or without the loop."""


C = TypeVar("C", bound=TableConnection)


class TableStore(ABC, Generic[C]):
    """The statements, on two connections that stand and fall together.

    The second reads the log and waits; the first does everything else.  Times are milliseconds by
    the tables' clock.  When a connection breaks or is aborted, each method raises one of `errors`.
    """

    name: str
    errors: tuple[type[Exception], ...]

    def __init__(self) -> None:
        self._connections: list[C] = []

    @abstractmethod
    def check(self) -> None:
        """Raise InvalidChannelLayerError if the settings can never work."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make the tables if they are missing."""

    async def close(self) -> None:
        """Close both connections."""
        connections, self._connections = self._connections, []
        await asyncio.gather(*(connection.close() for connection in connections))

    def abort(self) -> None:
        """Fail what is under way, and what follows."""
        for connection in self._connections:
            connection.abort()

    def abandon(self) -> None:
        """Close the descriptors, in a forked child or without the loop."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.abandon()

    @abstractmethod
    async def ask(self, statement: str, *arguments: Any) -> Sequence[tuple[Any, ...]]:
        """The rows of a statement.

        statement                          rows
        register   node                    fence, number and two columns of results of the last
                                           batch, incarnation and last id of the log, time, shift
        leave      node, fence
        clock                              time, shift; none if the tables are empty
        set_shift  after, before           changed unless another process has done so
        tick       now, most               milliseconds until the next message is due, or None;
                                           how many leases had run out
        clean      now, life of a node, most   how many were deleted
        page       hashes, cursor, most    incarnation, highest id cleaned away and last id of the
                                           log; id, hash and, if it is for one of these hashes,
                                           payload of an entry

        `tick` moves what is due; `clean` deletes what has expired.  `page` gives a row without an
        entry if none follows the cursor.
        """

    @abstractmethod
    async def write(
        self, node: int, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[Sequence[Numbers], Sequence[LeasedRow]]:
        """Carry out a batch; what came of each call, and what they have leased."""

    @abstractmethod
    async def wait(self) -> set[int] | None:
        """Wait for news or for the next poll; the hashes of what has some, None: perhaps any.

        One may be `DUE`.
        """
