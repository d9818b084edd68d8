"""What a session asks of a database: the contract of PostgreSQL's and of Django's statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from channels.backends.postgres.calls import Call, Numbers
from channels.exceptions import ChannelsError

#: In place of a hash: messages of committed transactions wait for someone to put them into the log.
DUE: Final = 0


class Refused(ChannelsError):
    """The database does not carry out a batch, although the connection works."""


class TablesReplaced(ChannelsError):
    """The tables were emptied or made anew under a process."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What a process finds when it connects.

    Attributes:
        batch: The last one that was carried out; `results` is what came of its calls.
        last: The log's last id.
        now: By the tables' clock, whose shift is `shift`.
    """

    fence: int
    batch: int
    results: Sequence[Numbers]
    incarnation: str
    last: int
    now: int
    shift: int


@dataclass(frozen=True, slots=True)
class Page:
    """What of the log follows a cursor.

    Attributes:
        cursor: Up to which id it is complete.
        rows: (id, hash, payload) of what is wanted, in order.
        horizon: The highest id that was cleaned away.
        last: The log's last id.
        is_last: Nothing more follows now.
        is_due: As `DUE`.
    """

    cursor: int
    rows: Sequence[tuple[int, int, bytes]]
    horizon: int
    incarnation: str
    last: int
    is_last: bool
    is_due: bool = False


class TableStore(Protocol):
    """The statements, on two connections that stand and fall together.

    `read` and `wait` use one, all other methods the other.  Times are milliseconds by the tables'
    clock.  When a connection breaks or is aborted, each method raises one of `errors`.
    """

    name: str
    errors: tuple[type[Exception], ...]

    def check(self) -> None:
        """Raise InvalidChannelLayerError if the settings can never work."""

    async def open(self) -> None:
        """Connect, and make the tables if they are missing."""

    async def close(self) -> None: ...

    def abort(self) -> None:
        """Fail what is under way, and what follows."""

    def abandon(self) -> None:
        """Close the descriptors, in a forked child or without the loop."""

    async def register(self, node: str) -> Registration: ...

    async def leave(self, node: str, fence: int) -> None: ...

    async def clock(self) -> tuple[int, int]:
        """The time by the tables' clock, and its shift."""

    async def set_shift(self, before: int, after: int) -> None:
        """Shift the clock, unless another process has done so."""

    async def write(
        self, node: str, fence: int, number: int, now: int, calls: Sequence[Call]
    ) -> tuple[Sequence[Numbers], Mapping[int, bytes]]:
        """Carry out a batch; what came of each call, and payloads by the token of their lease.

        Raises:
            Refused: If the database will not.
        """

    async def tick(self, now: int) -> tuple[int | None, int]:
        """Put what is due into its queue.

        Returns:
            Milliseconds until the next is due, and how many leases had run out.
        """

    async def clean(self, now: int, node_life: int) -> tuple[int, bool]:
        """Delete some of what has expired: how much that was, and whether there may be more."""

    async def read(self, cursor: int, wanted: Mapping[int, int]) -> Page: ...

    async def wait(self, wanted: Mapping[int, int]) -> set[int] | None:
        """Wait for news or for the next poll; the hashes of what has some, None: perhaps any.

        One may be `DUE`.
        """
