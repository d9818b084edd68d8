"""Reading queues in tables: what is asked for, and what comes of the answers."""

from __future__ import annotations

import asyncio
from typing import Any

from channels.backends.tables.calls import Call, CallLine, target_hash
from channels.backends.tables.readers import QueueReaders, pack_token, read_token
from channels.backends.ticker import Ticker
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, Kind, attempted


class Database:
    """Stands at the other end of the line."""

    def __init__(self, most: int = 100) -> None:
        self.line = CallLine(most)
        self.readers = QueueReaders(self.line, "asgi", Ticker())
        self.pulled: list[Any] = []
        self.leased: list[Leased] = []
        self.readers.begin(lambda _, data: self.pulled.append(data))

    def asked(self) -> list[Call]:
        """What it is asked now; answer it by `answer`."""
        return self.line.gather()

    async def answer(self, *taken: tuple[int, bytes]) -> None:
        """The answer to the first call; the others get none."""
        self.line.settle({0: (len(taken), 0, list(taken))})
        await asyncio.sleep(0)

    def lease(self, count: int) -> None:
        self.readers.demand_leased("work", count, 1.5, self.leased.append)


def envelope(seq: int) -> Envelope:
    return Envelope(Kind.CHANNEL, "work", b"x", sender=b"12345678", seq=seq)


async def test_one_question_at_a_time_for_as_many_as_are_wanted() -> None:
    database = Database()
    database.readers.demand("work", 2)
    database.readers.demand("work", 3)
    (call,) = database.asked()
    assert (call.kind, call.number, call.hash) == ("p", 2, target_hash("asgi", "q", "work"))
    await database.answer((7, envelope(1).encoded))
    (call,) = database.asked()
    assert call.number == 2, "one of the three has come"
    await database.answer()
    assert not database.asked()
    assert [each.seq for each in database.pulled] == [1]


async def test_a_wake_up_during_a_question_asks_again() -> None:
    database = Database()
    database.readers.demand("work", 1)
    database.asked()
    database.readers.woken({target_hash("asgi", "q", "other")})
    await database.answer()
    assert not database.asked(), "it was about another queue"
    database.line.settle({})
    database.readers.woken({target_hash("asgi", "q", "work")})
    database.asked()
    database.readers.woken(None)
    await database.answer()
    assert [call.kind for call in database.asked()] == ["p"]


async def test_a_queue_is_read_in_both_ways() -> None:
    database = Database()
    database.readers.demand("work", 1)
    database.lease(1)
    pull, lease = database.asked()
    assert (pull.kind, lease.kind, lease.deadline) == ("p", "l", 1500)
    data = attempted(envelope(1).encoded, 3)
    database.line.settle({1: (1, 0, [(lease.extra, data)])})
    await asyncio.sleep(0)
    assert not database.pulled
    (leased,) = database.leased
    assert (leased.queue, leased.attempts, leased.token) == ("work", 3, pack_token(lease.extra))


async def test_leases_of_two_questions_have_other_tokens() -> None:
    database, tokens = Database(), set()
    for _ in range(20):
        database.lease(1)
        (call,) = database.asked()
        assert 0 < call.extra < 2**63 - 1000
        tokens.add(call.extra)
        await database.answer()
        database.lease(0)
    assert len(tokens) == 20


async def test_bytes_that_are_no_envelope_come_too() -> None:
    database = Database()
    database.readers.demand("work", 1)
    database.lease(1)
    _, lease = database.asked()
    database.line.settle({0: (1, 0, [(1, b"?")]), 1: (1, 0, [(lease.extra, b"!")])})
    await asyncio.sleep(0)
    assert database.pulled == [b"?"]
    assert (database.leased[0].data, database.leased[0].attempts) == (b"!", 1)


async def test_what_comes_back_names_its_place() -> None:
    database = Database()
    database.readers.demand("work", 2)
    database.asked()
    await database.answer((7, envelope(1).encoded), (9, envelope(2).encoded))
    database.readers.give_back("work", [*database.pulled, envelope(3)])
    assert [(call.kind, call.number) for call in database.asked()] == [
        ("b", 0),
        ("b", 9),
        ("b", 7),
    ]


async def test_what_is_leased_while_it_closes_is_put_back() -> None:
    database = Database()
    database.lease(1)
    (call,) = database.asked()
    database.readers.quiesce()
    await database.answer((call.extra, envelope(1).encoded))
    assert not database.leased
    (back,) = database.asked()
    assert (back.kind, back.extra) == ("u", call.extra)
    database.line.settle({})
    database.lease(1)
    assert not database.asked(), "nothing more is taken"


async def test_a_full_line_is_asked_again_by_the_next_look() -> None:
    database = Database(most=1)
    database.line.put(Call("g"))
    database.readers.demand("work", 1)
    database.readers.give_back("work", [envelope(1)])
    assert database.readers.counters["dropped_given_back"] == 1
    assert [call.kind for call in database.asked()] == ["g"]
    database.line.settle({})
    database.readers.woken(None)
    assert [call.kind for call in database.asked()] == ["p"]


async def test_readers_of_many_queues_that_have_gone_leave_nothing() -> None:
    database = Database()
    for number in range(10):
        database.readers.demand(f"work{number}", 1)
        database.readers.demand(f"work{number}", 0)
    database.asked()
    database.line.settle({})
    await asyncio.sleep(0)
    database.readers.woken(None)
    assert not database.asked()
    assert not database.readers._readings


def test_a_token_that_is_none() -> None:
    assert read_token(pack_token(5)) == 5
    assert [read_token(token) for token in (b"", b"123", bytes(9), b"\xff" * 8)] == [0] * 4
