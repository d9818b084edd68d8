"""Reading queues by lease, of tables: what is asked for, and what comes of the answers."""

from __future__ import annotations

import asyncio

from channels.backends.lease_reader import LeaseReader
from channels.backends.postgres.calls import (
    Call,
    CallQueue,
    Result,
    TableLeases,
    pack_token,
    read_token,
    target_hash,
)
from channels.backends.ticker import Ticker
from channels.layers.contract import Leased


class Calls(CallQueue):
    """Keeps where the results go."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.answers: list[asyncio.Future[Result]] = []

    def put(self, call: Call) -> asyncio.Future[Result]:
        self.answers.append(super().put(call))
        return self.answers[-1]


class Database:
    """Stands at the other end of the calls."""

    def __init__(self, most: int = 100) -> None:
        self.calls = Calls(most)
        self.readers = LeaseReader(TableLeases(self.calls, "asgi"), Ticker())
        self.leased: list[Leased] = []
        self._asked: list[Call] = []

    def asked(self) -> list[Call]:
        """What it is asked now; answer it by `answer`."""
        self._asked = self.calls.gather()
        return self._asked

    async def answer(self, *payloads: bytes) -> None:
        """The answer to what was asked; the first call gets these."""
        token = self._asked[0].extra if self._asked else 0
        leased = [(token, number, 3, payload) for number, payload in enumerate(payloads, 1)]
        self.calls.settle([(0, 0)] * len(self._asked), leased)
        await asyncio.sleep(0)

    def demand(self, count: int, queue: str = "work") -> None:
        self.readers.demand(queue, count, 1.5, self.leased.append)


async def test_one_question_at_a_time_for_as_many_as_are_wanted() -> None:
    database = Database()
    database.demand(2)
    database.demand(3)
    (call,) = database.asked()
    assert (call.kind, call.number, call.hash) == ("l", 2, target_hash("asgi", "q", "work"))
    assert call.deadline == 1500
    await database.answer(b"x")
    (again,) = database.asked()
    assert again.number == 2, "one of the three has come"
    await database.answer()
    assert not database.asked()
    (leased,) = database.leased
    assert leased == ("work", b"x", pack_token(call.extra, 1), 3)


async def test_a_wake_up_during_a_question_asks_again() -> None:
    database = Database()
    database.demand(1)
    database.asked()
    database.readers.woken("other")
    await database.answer()
    assert not database.asked(), "it was about another queue"
    await database.answer()
    database.readers.woken("work")
    database.asked()
    database.readers.resume()
    await database.answer()
    assert [call.kind for call in database.asked()] == ["l"]


async def test_leases_of_two_questions_have_other_tokens() -> None:
    database, tokens = Database(), set()
    for _ in range(20):
        database.demand(1)
        (call,) = database.asked()
        assert 0 < call.extra < 2**63
        tokens.add(call.extra)
        await database.answer()
        database.demand(0)
    assert len(tokens) == 20


async def test_what_is_leased_while_it_closes_is_put_back() -> None:
    database = Database()
    database.demand(1)
    (call,) = database.asked()
    quiescing = asyncio.create_task(database.readers.quiesce())
    await asyncio.sleep(0)
    await database.answer(b"x")
    assert not database.leased
    while not database.calls.is_waiting:  # noqa: ASYNC110 - it takes its turn
        await asyncio.sleep(0)
    (back,) = database.asked()
    assert (back.kind, back.hash, back.extra) == ("u", 1, call.extra)
    await database.answer()
    await quiescing
    database.demand(1)
    assert not database.asked(), "nothing more is taken"


async def test_a_full_queue_of_calls_is_asked_again_by_the_next_poll() -> None:
    database = Database(most=1)
    database.calls.put(Call("g"))
    database.demand(1)
    assert [call.kind for call in database.asked()] == ["g"]
    await database.answer()
    database.readers.resume()
    assert [call.kind for call in database.asked()] == ["l"]


async def test_readers_of_many_queues_that_have_gone_leave_nothing() -> None:
    database = Database()
    for number in range(10):
        for count in (1, 0):
            database.demand(count, f"work{number}")
    database.asked()
    await database.answer()
    database.readers.resume()
    assert not database.asked()
    assert not database.readers.names


async def test_a_question_whose_answer_was_lost_is_asked_again_with_its_token() -> None:
    """Else what it has leased would be nobody's until its time is over."""
    database = Database()
    database.demand(1)
    (call,) = database.asked()
    database.calls.answers[-1].set_exception(OSError("gone"))
    await database.answer()
    await asyncio.sleep(0)
    assert not database.calls.is_waiting
    database.demand(0)
    (again,) = database.asked()
    assert (again.extra, again.number) == (call.extra, 1)
    await database.answer(b"x")
    assert [leased.token for leased in database.leased] == [pack_token(call.extra, 1)]


def test_a_token_that_is_none() -> None:
    assert read_token(pack_token(5, 7)) == (7, 5)
    for token in (b"", b"123", bytes(15), b"\xff" * 16, bytes(8) + b"\xff" * 8):
        assert read_token(token) == (0, 0)
