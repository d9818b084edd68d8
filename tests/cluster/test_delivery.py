"""At least once, while workers are killed: processes of their own, and a broker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.member import make_layer
from tests.cluster.sites import BROKERS, Row, site_on
from tests.cluster.traffic import until
from tests.cluster.worker import WorkerProcess

DELIVERY = {
    "jobs": {
        "visibility_timeout": 1.5,
        "max_attempts": 2,
        "retry_delay": 0.05,
        "dead_letter": "dead",
    }
}


#: Messages of the case with many.
MANY = {
    "redis": 2000,
    "rabbitmq": 2000,
    "nats": 800,
    "postgres": 600,
    "database": 200,
    "local": 2000,
}


class Jobs:
    """A layer whose channel "jobs" is read at least once, and the workers on it.

    Args:
        databases: Django's in the workers' processes.
        many: Messages of the case with many.
    """

    def __init__(
        self, backend: str, config: Mapping[str, Any], databases: Mapping[str, Any], many: int
    ) -> None:
        self.backend = backend
        self.config = {"delivery": DELIVERY, "capacity": 10_000, **config}
        self.many = many
        #: What is particular to it; None: it has no server.
        self.row: Row | None = None
        self.layer = make_layer(backend, self.config)
        self._databases = databases
        self._workers = contextlib.AsyncExitStack()

    async def worker(self, **more: Any) -> WorkerProcess:
        made = WorkerProcess(self.backend, self.config, "jobs", databases=self._databases, **more)
        return await self._workers.enter_async_context(made)

    async def send(self, number: int, do: str, seconds: float = 0.0, **more: Any) -> None:
        message = {"type": "job", "number": number, "do": do, "seconds": seconds}
        await self.layer.send("jobs", message, **more)

    def need(self, feature: str) -> None:
        """Skip the test unless the layer has it."""
        if self.row is not None and not getattr(self.row, feature):
            pytest.skip(f"the layer has not: {feature}")

    async def close(self) -> None:
        await self._workers.aclose()
        await self.layer.flush()
        await self.layer.close()


@pytest.fixture(params=list(MANY))
async def jobs(
    request: pytest.FixtureRequest, short_path: Path, alias: Callable[..., str]
) -> AsyncIterator[Jobs]:
    name, many = request.param, MANY[request.param]
    if name == "local":
        made = Jobs("channels.layers.LocalChannelLayer", {"directory": str(short_path)}, {}, many)
        # The hub is here: workers are killed, and none of them takes it along.
        await made.layer.new_channel()
    else:
        site = site_on(name, request.getfixturevalue(BROKERS[name].server), alias)
        made = Jobs(site.backend, site.config(send_timeout=10.0), site.databases(), many)
        made.row = site.row
    yield made
    await made.close()


async def test_what_a_killed_worker_had_in_hand_is_done_by_another(jobs: Jobs) -> None:
    jobs.need("exact_attempts")
    first = await jobs.worker()
    await jobs.send(1, "work", 30)
    await until(lambda: first.began == [(1, 1)], "the first worker has it")
    # Killed first: while it lives it would be given the message again if the other takes its time.
    await first.end(signal.SIGKILL)
    second = await jobs.worker()
    await until(lambda: second.began == [(1, 2)], "the second worker has it")
    await second.end(signal.SIGKILL)
    assert first.done == second.done == []


async def test_it_comes_once_more_and_no_oftener(jobs: Jobs) -> None:
    jobs.need("exact_attempts")
    one = await jobs.worker()
    await jobs.send(1, "hang")
    await until(lambda: one.began == [(1, 1)], "the first worker has it")
    await one.end(signal.SIGKILL)
    two, three = await jobs.worker(), await jobs.worker()
    await until(lambda: len(two.began) + len(three.began) == 1, "another has it")
    await jobs.send(2, "work")
    await until(lambda: len(two.done) + len(three.done) == 1, "the next one is done meanwhile")
    # A second redelivery would end here: two attempts are the most.
    letter = await asyncio.wait_for(jobs.layer.receive("dead"), 10)
    assert letter["message"]["number"] == 1
    assert sorted(two.began + three.began) == [(1, 2), (2, 1)]


async def test_what_kills_every_worker_goes_to_the_dead_letters(jobs: Jobs) -> None:
    await jobs.send(1, "die")
    for attempt in (1, 2):
        victim = await jobs.worker()
        await asyncio.wait_for(victim.ended(), 15)
        assert victim.began == [(1, attempt)]
    survivor = await jobs.worker()
    letter = await asyncio.wait_for(jobs.layer.receive("dead"), 10)
    assert letter["message"]["number"] == 1
    assert "never finished" in letter["reason"]
    await jobs.send(2, "work")
    await until(lambda: survivor.done == [(2, 1)], "the survivor works")
    assert survivor.began == [(2, 1)], "it never saw the poison"


async def test_what_fails_is_tried_again_and_buried(jobs: Jobs) -> None:
    worker = await jobs.worker()
    await jobs.send(1, "fail")
    letter = await asyncio.wait_for(jobs.layer.receive("dead"), 10)
    assert (letter["message"]["number"], letter["attempts"]) == (1, 2)
    assert letter["reason"] == "LookupError: as it was told"
    assert worker.began == [(1, 1), (1, 2)]


async def test_a_stopped_worker_gives_back_what_it_cannot_finish(jobs: Jobs) -> None:
    jobs.need("exact_attempts")
    first = await jobs.worker(shutdown_timeout=0.2)
    await jobs.send(1, "hang")
    await jobs.send(2, "work", 0.05)
    await until(lambda: len(first.began) == 2, "both are in hand")
    await first.end(signal.SIGTERM)
    assert first.done == [(2, 1)]
    second = await jobs.worker()
    await until(lambda: second.began == [(1, 1)], "given back at once, and not counted")


async def test_nothing_is_lost_while_workers_are_killed(jobs: Jobs) -> None:
    count, chance = jobs.many, random.Random(11)
    workers = [await jobs.worker() for _ in range(3)]
    everyone = list(workers)
    for number in range(count):
        await jobs.send(number, "work", 0.02)

    def done() -> Counter[int]:
        return Counter(number for worker in everyone for number, _ in worker.done)

    for kill in range(1, 6):
        await until(lambda kill=kill: len(done()) >= kill * count // 8, "the work goes on")  # type: ignore[misc]
        victim = chance.randrange(3)
        await workers[victim].end(signal.SIGKILL)
        workers[victim] = await jobs.worker()
        everyone.append(workers[victim])
    letters: list[int] = []

    async def collect() -> None:
        while True:
            letters.append((await jobs.layer.receive("dead"))["message"]["number"])

    collecting = asyncio.create_task(collect())
    # One that was in two killed workers' hands has had its two attempts: it is laid down, not lost.
    await until(lambda: done().keys() | set(letters) == set(range(count)), "none is lost", 30)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    finished = done()
    assert len(letters) <= 10
    # What was in a killed worker's hands, ten messages, and what it had written but not told.
    assert sum(finished.values()) - count <= 5 * 10


async def test_a_delayed_message_outlives_its_sender(jobs: Jobs) -> None:
    jobs.need("delays")
    sender = make_layer(jobs.backend, jobs.config)
    await sender.send("jobs", {"type": "x", "number": 1, "do": "work", "seconds": 0}, delay=1.0)
    await sender.close()
    worker = await jobs.worker()
    await until(lambda: worker.done == [(1, 1)], "it is done")
