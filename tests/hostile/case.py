"""Rows of the HTTP tables: what is sent, and which outcomes are right."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import pytest

from tests.hostile.client import ConnectionEnded, RawClient
from tests.hostile.process import ServerProcess, wait_until

#: Sent on the same connection after a row: answered only if the connection is in good order.
STILL_HERE = b"GET /still-here HTTP/1.1\r\nHost: hostile.test\r\n\r\n"


class Act(enum.Enum):
    """What a client does beside sending bytes."""

    HALF_CLOSE = "half-close"
    AWAIT_ANSWER = "await answer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The statuses in order, what became of the connection, what the application saw.

    A note that ends in a question mark may be missing: the application may or may not have been
    called before the fault in the request's body was read.
    """

    statuses: tuple[int, ...]
    connection: str
    seen: tuple[str, ...] = ()

    def fits(self, statuses: tuple[int, ...], connection: str, seen: tuple[str, ...]) -> bool:
        return (self.statuses, self.connection) == (statuses, connection) and self.fits_notes(seen)

    def __str__(self) -> str:
        return f"{self.statuses}, {self.connection}, application saw {self.seen}"

    def fits_notes(self, seen: tuple[str, ...]) -> bool:
        must = tuple(note for note in self.seen if not note.endswith("?"))
        may = tuple(note.rstrip("?") for note in self.seen)
        return seen in {must, may}


def request(*lines: bytes, body: bytes = b"") -> bytes:
    """A request from its lines, each ended by CRLF, with the empty line and the body."""
    return b"\r\n".join([*lines, b"", body])


def get(*headers: bytes, path: bytes = b"/") -> bytes:
    return request(b"GET %s HTTP/1.1" % path, b"Host: hostile.test", *headers)


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return request(b"POST / HTTP/1.1", b"Host: hostile.test", *headers, body=body)


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def refused(*statuses: int, seen: tuple[str, ...] = ()) -> tuple[Outcome, ...]:
    """One of these statuses, then closed; the application does not get a whole request."""
    return tuple(Outcome((status,), "closed", seen) for status in statuses or (400,))


def served(*seen: str, statuses: tuple[int, ...] = (200,)) -> tuple[Outcome, ...]:
    """Answered in good order; the connection can be used again."""
    return (Outcome(statuses, "open", (*seen, "GET /still-here 0")),)


def cut_off(*seen: str) -> tuple[Outcome, ...]:
    """Closed with a 400, or without a word to one who listens no more."""
    return (*refused(400, seen=seen), Outcome((), "closed", seen))


def served_and_closed(*seen: str, statuses: tuple[int, ...] = (200,)) -> tuple[Outcome, ...]:
    return (Outcome(statuses, "closed", seen),)


@dataclass(frozen=True, slots=True)
class Row:
    """One case: an id, what to send in steps, and the outcomes that are right."""

    id: str
    steps: bytes | tuple[bytes | Act, ...]
    right: tuple[Outcome, ...]
    #: The requirement's level and where it stands, as in "MUST, RFC 9112 section 3.2".
    rule: str = ""


def under(rule: str, *rows: Row) -> list[Row]:
    """The rows that one requirement decides."""
    return [replace(row, rule=rule) for row in rows]


def table(rows: list[Row]) -> pytest.MarkDecorator:
    """The rows as parameters of a test."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in rows])


def play(server: ServerProcess, row: Row) -> None:
    """Send the row over a connection of its own and judge what happened."""
    with RawClient(server.address) as client:
        statuses: list[int] = []
        for step in (row.steps,) if isinstance(row.steps, bytes) else row.steps:
            if step is Act.HALF_CLOSE:
                client.half_close()
            elif step is Act.AWAIT_ANSWER:
                statuses.append(client.response().status)
            else:
                assert isinstance(step, bytes)
                client.send(step)
        connection = _rest(client, statuses, row.right)
        found = tuple(statuses)
        notes = _notes(server, client.port, row, found, connection)
    if not any(outcome.fits(found, connection, notes) for outcome in row.right):
        right = "\n  or ".join(map(str, row.right))
        got = Outcome(found, connection, notes)
        rule = f" ({row.rule})" if row.rule else ""
        pytest.fail(f"{row.id}{rule}:\n got {got}\n not {right}", pytrace=False)


def _rest(client: RawClient, statuses: list[int], right: tuple[Outcome, ...]) -> str:
    """Read what else comes; then ask whether the connection still works."""
    most = max(len(outcome.statuses) for outcome in right)
    while True:
        if any(outcome.statuses == tuple(statuses) for outcome in right):
            client.send(STILL_HERE)
        try:
            answer = client.response()
        except ConnectionEnded as ended:
            return "closed" if not ended.leftover else f"closed after {ended.leftover!r}"
        except TimeoutError:
            return "silent"
        if answer.body == b"GET /still-here 0":
            return "open"
        statuses.append(answer.status)
        if len(statuses) > most + 5:
            return "does not stop answering"


def _notes(
    server: ServerProcess, port: int, row: Row, statuses: tuple[int, ...], connection: str
) -> tuple[str, ...]:
    possible = [o for o in row.right if (o.statuses, o.connection) == (statuses, connection)]
    return wait_until(
        lambda: tuple(server.seen(port)),
        # Without a possible outcome the row has failed already: one look is enough.
        lambda seen: not possible or any(outcome.fits_notes(seen) for outcome in possible),
    )
