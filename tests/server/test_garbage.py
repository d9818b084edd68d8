from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from channels.kit.limits import MIB
from channels.kit.types import Receive, Scope, Send
from channels.server import Server, ServerOptions
from channels.server.garbage import Garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.collect()
    gc.freeze()


def test_the_collector_runs_less_often_meanwhile() -> None:
    before = gc.get_threshold()
    with Garbage(after_objects=12_345).owned():
        assert gc.get_threshold()[0] == 12_345
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_all_is_restored_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyboardInterrupt), Garbage(after_objects=12_345).owned():
        raise KeyboardInterrupt
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_none_leaves_it_alone() -> None:
    # Others in this process may have frozen something.
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with Garbage().owned():
        assert gc.get_threshold() == before
        # A frozen object may end meanwhile; to freeze or thaw counts thousands.
        assert abs(gc.get_freeze_count() - frozen) < 1_000


@pytest.mark.parametrize("owns_process", [True, False])
def test_a_server_sets_it_where_the_process_is_its_own(owns_process: bool) -> None:
    seen: list[int] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            seen.append(gc.get_threshold()[0])
            await send({"type": f"{event['type']}.complete"})
            server.request_stop()
            if event["type"] == "lifespan.shutdown":
                return

    before = gc.get_threshold()[0]
    server = Server(application, [], ServerOptions(collect_after_objects=12_345))
    server.run(install_signals=owns_process)
    assert seen == [12_345 if owns_process else before] * 2
    assert gc.get_threshold()[0] == before


class Body(bytearray):
    """A body that can be watched."""


class Holder:
    """An application's object in a reference cycle, with the body of its request."""

    def __init__(self) -> None:
        self.body = Body(MIB)
        self.me = self


async def let_it_collect() -> None:
    """What is due is done in the next turn."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
def seldom() -> None:
    """No collection by the number of objects."""
    gc.collect()
    gc.set_threshold(1_000_000, 1000, 1000)


async def test_bodies_in_cycles_are_collected_by_their_octets(seldom: None) -> None:
    garbage, loop = Garbage(after_bytes=4 * MIB), asyncio.get_running_loop()
    bodies: list[weakref.ref[Body]] = []
    with garbage.owned():
        for _ in range(20):
            # uvloop's time is as old as the turn, and the collection may be younger.
            began = time.monotonic()
            holder = Holder()
            bodies.append(weakref.ref(holder.body))
            del holder
            garbage.add(MIB, began, loop)
            await let_it_collect()
            assert sum(body() is not None for body in bodies) <= 4


async def test_bodies_that_a_collection_found_in_use_are_collected_too(seldom: None) -> None:
    garbage, loop = Garbage(after_bytes=4 * MIB), asyncio.get_running_loop()
    with garbage.owned():
        began = loop.time()
        holders = [Holder() for _ in range(4)]
        bodies = [weakref.ref(holder.body) for holder in holders]
        gc.collect(1)
        del holders
        gc.collect(1)
        assert all(body() is not None for body in bodies), "they are in the old generation"
        for _ in bodies:
            garbage.add(MIB, began, loop)
        await let_it_collect()
        assert not any(body() is not None for body in bodies)


async def test_full_collections_take_a_share_of_the_time_only(
    seldom: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage, loop = Garbage(after_bytes=MIB), asyncio.get_running_loop()
    full: list[float] = []

    def slowly(phase: str, info: dict[str, int]) -> None:
        if info["generation"] == 2 and phase == "start":
            full.append(loop.time())
            time.sleep(0.01)

    # A collection takes as long as the process is large, and the next one waits twenty times that.
    gc.collect()
    gc.freeze()
    gc.callbacks.append(slowly)
    try:
        with garbage.owned():
            for _ in range(2):
                garbage.add(MIB, 0.0, loop)
                await let_it_collect()
            assert len(full) == 1
            async with asyncio.timeout(50):
                while len(full) == 1:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0.01)
    finally:
        gc.callbacks.remove(slowly)
        gc.unfreeze()
    assert full[1] - full[0] >= 0.2


async def test_without_an_owner_the_collector_is_left_alone(seldom: None) -> None:
    loop = asyncio.get_running_loop()
    garbage = Garbage(after_bytes=MIB)
    holder = Holder()
    body = weakref.ref(holder.body)
    del holder
    for _ in range(20):
        garbage.add(MIB, loop.time(), loop)
    await let_it_collect()
    assert body() is not None
    gc.collect()
