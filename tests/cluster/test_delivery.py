"""At least once, while workers are killed: processes of their own, and a broker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.member import make_layer
from tests.cluster.postgres import PostgresFolder, PostgresServer
from tests.cluster.servers import OwnServer, nats_server, redis_server
from tests.cluster.traffic import until
from tests.cluster.worker import WorkerProcess
from tests.layers.databases import alias

__all__ = ["alias"]

DELIVERY = {
    "jobs": {
        "visibility_timeout": 1.5,
        "max_attempts": 2,
        "retry_delay": 0.05,
        "dead_letter": "dead",
    }
}


class Site:
    """One backend with its settings, and the workers on it.

    Args:
        databases: Django's in the workers' processes.
    """

    #: Messages of a test with many.
    many = 2000

    def __init__(
        self, backend: str, databases: Mapping[str, Any] | None = None, **config: Any
    ) -> None:
        self.backend = backend
        self.databases = databases
        self.config = {"delivery": DELIVERY, "capacity": 10_000, **config}
        self.layer = make_layer(backend, self.config)
        self._workers = contextlib.AsyncExitStack()

    async def worker(self, **more: Any) -> WorkerProcess:
        made = WorkerProcess(self.backend, self.config, "jobs", databases=self.databases, **more)
        return await self._workers.enter_async_context(made)

    async def send(self, number: int, do: str, seconds: float = 0.0, **more: Any) -> None:
        message = {"type": "job", "number": number, "do": do, "seconds": seconds}
        await self.layer.send("jobs", message, **more)

    async def close(self) -> None:
        await self._workers.aclose()
        await self.layer.flush()
        await self.layer.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    folder = PostgresFolder()
    with folder.server() as server:
        yield server
    folder.remove()


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=["redis", "rabbitmq", "nats", "local", "postgres", "database"])
async def site(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Site]:
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        made = Site(
            "channels_redis.core.RedisChannelLayer",
            hosts=[f"redis://127.0.0.1:{server.port}"],
            prefix=short_path.name,
        )
    elif request.param == "rabbitmq":
        server = request.getfixturevalue("rabbitmq")
        made = Site(
            "channels.layers.RabbitMQChannelLayer",
            url=f"amqp://guest:guest@127.0.0.1:{server.port}",
            prefix=short_path.name,
        )
    elif request.param == "nats":
        server = request.getfixturevalue("nats")
        made = Site(
            "channels.layers.NatsChannelLayer",
            servers=f"nats://127.0.0.1:{server.port}",
            prefix=short_path.name,
        )
        made.many = 800
    elif request.param == "local":
        made = Site("channels.layers.LocalChannelLayer", directory=str(short_path))
        # The hub is here: workers are killed, and none of them takes it along.
        await made.layer.new_channel()
    else:
        made = make_site(request.param, request, prefix=short_path.name)
    yield made
    await made.close()


def make_site(backend: str, request: pytest.FixtureRequest, prefix: str) -> Site:
    """On the PostgreSQL, by the layer of its own or by Django's."""
    server: PostgresServer = request.getfixturevalue("postgres")
    if backend == "postgres":
        made = Site("channels.layers.PostgresChannelLayer", dsn=server.dsn, prefix=prefix)
        made.many = 600
        return made
    request.getfixturevalue("alias")("own", **server.django)
    made = Site(
        "channels.layers.DatabaseChannelLayer",
        databases={"default": {}, "own": server.django},
        database="own",
        prefix=prefix,
        tables="jobs",
        send_timeout=10,
    )
    made.many = 200
    return made


async def test_what_a_killed_worker_had_in_hand_is_done_by_another(site: Site) -> None:
    first = await site.worker()
    await site.send(1, "work", 30)
    await until(lambda: first.began == [(1, 1)], "the first worker has it")
    # Killed first: while it lives it would be given the message again if the other takes its time.
    await first.end(signal.SIGKILL)
    second = await site.worker()
    await until(lambda: second.began == [(1, 2)], "the second worker has it")
    await second.end(signal.SIGKILL)
    assert first.done == second.done == []


async def test_it_comes_once_more_and_no_oftener(site: Site) -> None:
    one = await site.worker()
    await site.send(1, "hang")
    await until(lambda: one.began == [(1, 1)], "the first worker has it")
    await one.end(signal.SIGKILL)
    two, three = await site.worker(), await site.worker()
    await until(lambda: len(two.began) + len(three.began) == 1, "another has it")
    await site.send(2, "work")
    await until(lambda: len(two.done) + len(three.done) == 1, "the next one is done meanwhile")
    # A second redelivery would end here: two attempts are the most.
    letter = await asyncio.wait_for(site.layer.receive("dead"), 10)
    assert letter["message"]["number"] == 1
    assert sorted(two.began + three.began) == [(1, 2), (2, 1)]


async def test_what_kills_every_worker_goes_to_the_dead_letters(site: Site) -> None:
    await site.send(1, "die")
    for attempt in (1, 2):
        victim = await site.worker()
        await asyncio.wait_for(victim.ended(), 15)
        assert victim.began == [(1, attempt)]
    survivor = await site.worker()
    letter = await asyncio.wait_for(site.layer.receive("dead"), 10)
    assert letter["message"]["number"] == 1
    assert "never finished" in letter["reason"]
    await site.send(2, "work")
    await until(lambda: survivor.done == [(2, 1)], "the survivor works")
    assert survivor.began == [(2, 1)], "it never saw the poison"


async def test_what_fails_is_tried_again_and_buried(site: Site) -> None:
    worker = await site.worker()
    await site.send(1, "fail")
    letter = await asyncio.wait_for(site.layer.receive("dead"), 10)
    assert (letter["message"]["number"], letter["attempts"]) == (1, 2)
    assert letter["reason"] == "LookupError: as it was told"
    assert worker.began == [(1, 1), (1, 2)]


async def test_a_stopped_worker_gives_back_what_it_cannot_finish(site: Site) -> None:
    first = await site.worker(shutdown_timeout=0.2)
    await site.send(1, "hang")
    await site.send(2, "work", 0.05)
    await until(lambda: len(first.began) == 2, "both are in hand")
    await first.end(signal.SIGTERM)
    assert first.done == [(2, 1)]
    second = await site.worker()
    await until(lambda: second.began == [(1, 1)], "given back at once, and not counted")


async def test_nothing_is_lost_while_workers_are_killed(site: Site) -> None:
    count, chance = site.many, random.Random(11)
    workers = [await site.worker() for _ in range(3)]
    everyone = list(workers)
    for number in range(count):
        await site.send(number, "work", 0.02)

    def done() -> Counter[int]:
        return Counter(number for worker in everyone for number, _ in worker.done)

    for kill in range(1, 6):
        await until(lambda kill=kill: len(done()) >= kill * count // 8, "the work goes on")  # type: ignore[misc]
        victim = chance.randrange(3)
        await workers[victim].end(signal.SIGKILL)
        workers[victim] = await site.worker()
        everyone.append(workers[victim])
    letters: list[int] = []

    async def collect() -> None:
        while True:
            letters.append((await site.layer.receive("dead"))["message"]["number"])

    collecting = asyncio.create_task(collect())
    # One that was in two killed workers' hands has had its two attempts: it is laid down, not lost.
    await until(lambda: done().keys() | set(letters) == set(range(count)), "none is lost", 30)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    finished = done()
    assert len(letters) <= 10
    # What was in a killed worker's hands, ten messages, and what it had written but not told.
    assert sum(finished.values()) - count <= 5 * 10


async def test_a_delayed_message_outlives_its_sender(site: Site) -> None:
    sender = make_layer(site.backend, site.config)
    await sender.send("jobs", {"type": "x", "number": 1, "do": "work", "seconds": 0}, delay=1.0)
    await sender.close()
    worker = await site.worker()
    await until(lambda: worker.done == [(1, 1)], "it is done")
