"""What goes back to a queue goes there once, whatever the backend answers first."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest_asyncio

from channels.backends.returning import Returner
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.kit.tasks import TaskScope
from channels.layers.envelope import Envelope, Kind


class Backend:
    """Answers the offers in turn, and says how often it was asked."""

    def __init__(self, scope: TaskScope, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.offers = 0
        self.was_asked = asyncio.Event()
        self.is_up = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.returner = Returner(scope.spawn, self.is_up, self.counters)

    async def offer(self) -> bool:
        self.offers += 1
        self.was_asked.set()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def give_back(self, deadline: int = 0) -> None:
        envelope = Envelope(Kind.CHANNEL, "work", b"", b"sender..", 1, deadline)
        self.returner.give_back("work", envelope, self.offer)


@pytest_asyncio.fixture
async def scope() -> AsyncIterator[TaskScope]:
    scope = TaskScope("returns")
    yield scope
    await scope.close()


async def test_it_is_offered_until_it_is_taken(scope: TaskScope) -> None:
    backend = Backend(scope, False, ChannelLayerUnavailable("not now"), True)
    backend.give_back()
    await asyncio.wait_for(backend.returner.settle(), 5)
    assert backend.offers == 3
    assert backend.counters == {"given_back": 1}


async def test_while_the_backend_is_down_it_waits(scope: TaskScope) -> None:
    backend = Backend(scope, TransportDown(), True)
    backend.give_back()
    await asyncio.wait_for(backend.was_asked.wait(), 5)
    settling = asyncio.create_task(backend.returner.settle())
    await asyncio.wait([settling], timeout=0.2)
    assert backend.offers == 1
    backend.is_up.set()
    await asyncio.wait_for(settling, 5)
    assert backend.counters == {"given_back": 1}


async def test_a_backend_that_is_said_to_be_up_and_is_not_stalls_no_loop(scope: TaskScope) -> None:
    backend = Backend(scope, *[TransportDown() for _ in range(3)], True)
    backend.is_up.set()
    backend.give_back()
    turns = 0
    while not backend.counters:
        turns += 1
        await asyncio.sleep(0)
    # Without a pause each attempt would follow the one before in the same turn.
    assert turns > backend.offers


async def test_what_is_past_its_time_is_dropped_and_counted(scope: TaskScope) -> None:
    backend = Backend(scope)
    backend.give_back(deadline=int(time.time() * 1000) - 1)
    await asyncio.wait_for(backend.returner.settle(), 5)
    assert backend.offers == 0
    assert backend.counters == {"dropped_expired_returned": 1}
