"""Reading queues by lease, of tables: what is asked for, and what comes of the answers."""

from __future__ import annotations

import asyncio

from channels.backends.lease_reader import LeaseReader
from channels.backends.postgres.calls import Call, CallQueue, target_hash
from channels.backends.postgres.readers import TableLeases, pack_token, read_token
from channels.backends.ticker import Ticker
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, Kind, attempted


class Database:
    """Stands at the other end of the calls."""

    def __init__(self, most: int = 100) -> None:
        self.calls = CallQueue(most)
        self.readers = LeaseReader(TableLeases(self.calls, "asgi"), Ticker())
        self.leased: list[Leased] = []
        self._asked: list[Call] = []

    def asked(self) -> list[Call]:
        """What it is asked now; answer it by `answer`."""
        self._asked = self.calls.gather()
        return self._asked

    async def answer(self, *payloads: bytes) -> None:
        """The answer to what was asked; the first call gets these."""
        first = self._asked[0].extra if self._asked else 0
        self.calls.settle([(0, 0)] * len(self._asked), dict(enumerate(payloads, first)))
        await asyncio.sleep(0)

    def demand(self, count: int, queue: str = "work") -> None:
        self.readers.demand(queue, count, 1.5, self.leased.append)


def envelope(seq: int) -> Envelope:
    return Envelope(Kind.CHANNEL, "work", b"x", sender=b"12345678", seq=seq)


async def test_one_question_at_a_time_for_as_many_as_are_wanted() -> None:
    database = Database()
    database.demand(2)
    database.demand(3)
    (call,) = database.asked()
    assert (call.kind, call.number, call.hash) == ("l", 2, target_hash("asgi", "q", "work"))
    assert call.deadline == 1500
    await database.answer(attempted(envelope(1).encoded, 3))
    (again,) = database.asked()
    assert again.number == 2, "one of the three has come"
    await database.answer()
    assert not database.asked()
    (leased,) = database.leased
    assert (leased.queue, leased.attempts, leased.token) == ("work", 3, pack_token(call.extra))


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
        assert 0 < call.extra < 2**63 - 1000
        tokens.add(call.extra)
        await database.answer()
        database.demand(0)
    assert len(tokens) == 20


async def test_bytes_that_are_no_envelope_come_too() -> None:
    database = Database()
    database.demand(1)
    database.asked()
    await database.answer(b"!")
    assert (database.leased[0].data, database.leased[0].attempts) == (b"!", 1)


async def test_what_is_leased_while_it_closes_is_put_back() -> None:
    database = Database()
    database.demand(1)
    (call,) = database.asked()
    quiescing = asyncio.create_task(database.readers.quiesce())
    await asyncio.sleep(0)
    await database.answer(envelope(1).encoded)
    assert not database.leased
    while not database.calls.is_waiting:  # noqa: ASYNC110 - it takes its turn
        await asyncio.sleep(0)
    (back,) = database.asked()
    assert (back.kind, back.extra) == ("u", call.extra)
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
    database.calls.reject(OSError("gone"))
    await asyncio.sleep(0)
    assert not database.calls.is_waiting
    database.demand(0)
    (again,) = database.asked()
    assert (again.extra, again.number) == (call.extra, 1)
    await database.answer(envelope(1).encoded)
    assert [leased.token for leased in database.leased] == [pack_token(call.extra)]


def test_a_token_that_is_none() -> None:
    assert read_token(pack_token(5)) == 5
    assert [read_token(token) for token in (b"", b"123", bytes(9), b"\xff" * 8)] == [0] * 4
