"""Edges and workers as processes: restarted under traffic, killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.cluster.servers import redis_server
from tests.processes import Child

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LOCAL: Final = "channels.layers.LocalChannelLayer"
REDIS: Final = "channels.layers.RedisChannelLayer"
QUICK: Final = {"heartbeat": 0.3, "heartbeat_misses": 4}


class Site:
    """One edge and its workers."""

    def __init__(self, folder: Path, backend: str, config: dict[str, Any]) -> None:
        self._folder = folder
        self._layer = {"backend": backend, "config": config}
        self._stack = contextlib.ExitStack()
        self.port = 0

    async def start(self, role: str, on_crash: str = "close", **options: Any) -> Child:
        given = {
            "role": role,
            **self._layer,
            "on_crash": on_crash,
            "options": {**QUICK, **options},
        }
        env = {
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "ONCE": str(self._folder / "once"),
        }
        words = ("-m", "tests.decoupled.program", json.dumps(given))
        child = self._stack.enter_context(Child(*words, cwd=ROOT, env=env))
        if role == "edge":
            self.port = await asyncio.to_thread(child.wait_for_port)
        else:
            await asyncio.to_thread(child.wait_for, "Ready: taking connections")
        return child

    async def dial(self) -> ClientConnection:
        return await connect(f"ws://127.0.0.1:{self.port}/", open_timeout=20)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
async def site(short_path: Path) -> AsyncIterator[Site]:
    """Over the local broker."""
    made = Site(short_path, LOCAL, {"directory": str(short_path)})
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def redis_address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    with redis_server(tmp_path) as server:
        yield "127.0.0.1", server.port


async def talk(client: ClientConnection, until: asyncio.Event) -> tuple[int, set[str]]:
    """Say something and read its answer, again and again; how often, and who answered."""
    said, workers = 0, set[str]()
    while not until.is_set():
        said += 1
        await client.send(f"m{said}")
        answer = str(await client.recv())
        text, count, worker = answer.split()
        assert (text, count) == (f"m{said}", f"{said}"), "lost, doubled or out of order"
        workers.add(worker)
    return said, workers


async def roll_over(site: Site, sockets: int, link: str) -> None:
    """Restart two workers one after the other, while all sockets talk."""
    await site.start("edge")
    workers = [await site.start("worker", link=link), await site.start("worker", link=link)]
    clients = [await site.dial() for _ in range(sockets)]
    until = asyncio.Event()
    talks = [asyncio.create_task(talk(client, until)) for client in clients]
    for _ in range(2):
        old = workers.pop(0)
        old.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.wait) == 0, old.output
        workers.append(await site.start("worker", link=link))
    until.set()
    results = await asyncio.gather(*talks)
    assert all(said > 0 for said, _ in results)
    # Each socket was served by a worker that is gone, and still is.
    new = {str(worker.process.pid) for worker in workers}
    for client in clients:
        await client.send("last")
        assert str(await client.recv()).split()[2] in new
        await client.close()


@pytest.mark.parametrize("link", ["auto", "layer"])
async def test_workers_are_restarted_under_traffic_and_no_socket_notices(
    site: Site, link: str
) -> None:
    await roll_over(site, 100, link)


@pytest.fixture
async def redis_site(short_path: Path, redis_address: tuple[str, int]) -> AsyncIterator[Site]:
    """Over Redis, as if each process had a machine of its own."""
    made = Site(short_path, REDIS, {"hosts": [list(redis_address)]})
    yield made
    await asyncio.to_thread(made.close)


async def test_the_same_over_redis(redis_site: Site) -> None:
    await roll_over(redis_site, 30, "layer")


@pytest.mark.parametrize("link", ["auto", "layer"])
async def test_over_redis_a_killed_worker_s_connections_go_on(redis_site: Site, link: str) -> None:
    await redis_site.start("edge")
    first = await redis_site.start("worker", "redeliver", link=link)
    client = await redis_site.dial()
    await client.send("before")
    assert str(await client.recv()).startswith("before 1")
    await client.send("die once")
    await client.send("after")
    assert await asyncio.to_thread(first.wait) == -signal.SIGKILL
    await redis_site.start("worker", "redeliver", link=link)
    assert await client.recv() == "resumed at 1"
    for expected in ("die once 2", "after 3"):
        assert str(await client.recv()).startswith(expected)
    await client.close()


async def test_a_killed_worker_s_connections_are_closed_unless_they_say_more(site: Site) -> None:
    await site.start("edge")
    await site.start("worker", "close")
    client = await site.dial()
    await client.send("die once")
    with pytest.raises(ConnectionClosed) as closed:
        await client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


@pytest.mark.parametrize(
    ("on_crash", "again"), [("redeliver", ["die once 2", "after 3"]), ("drop", ["later 2"])]
)
async def test_a_killed_worker_s_connections_go_on_as_their_class_says(
    site: Site, on_crash: str, again: list[str]
) -> None:
    await site.start("edge")
    first = await site.start("worker", on_crash)
    client = await site.dial()
    await client.send("before")
    assert str(await client.recv()).startswith("before 1")
    await client.send("die once")
    if on_crash == "redeliver":
        # Else it is dropped if it reached the worker, and handled if it came to the edge too late.
        await client.send("after")
    assert await asyncio.to_thread(first.wait) == -signal.SIGKILL
    await site.start("worker", on_crash)
    assert await client.recv() == "resumed at 1"
    if on_crash == "drop":
        await client.send("later")
    for expected in again:
        assert str(await client.recv()).startswith(expected)
    await client.close()


async def test_a_worker_that_was_stopped_and_goes_on_is_not_heard(
    site: Site,
) -> None:
    await site.start("edge")
    first = await site.start("worker", "redeliver")
    client = await site.dial()
    await client.send("before")
    assert str(await client.recv()).startswith("before 1")
    os.kill(first.process.pid, signal.SIGSTOP)
    await client.send("while it is stopped")
    second = await site.start("worker", "redeliver")
    assert await client.recv() == "resumed at 1"
    answer = str(await client.recv()).split()
    assert answer[-2:] == ["2", str(second.process.pid)]
    os.kill(first.process.pid, signal.SIGCONT)
    # The former owner answers too, and nobody hears it.
    for n in range(3, 30):
        await client.send("on")
        assert str(await client.recv()).split() == ["on", f"{n}", str(second.process.pid)]
    await client.close()
