"""Old connections are closed where they are, and nobody hops to a thread without need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

import channels.db
from channels.db import (
    DatabaseSyncToAsync,
    aclose_old_connections,
    close_left_open,
    database_sync_to_async,
    in_transactions,
    keeps_connections,
    sweep,
    use_connections,
    watch_connections,
)
from channels.lending import LentConnection


class StubConnection:
    """What Django keeps of a connection, without a database."""

    def __init__(self, **changed: Any) -> None:
        self.connection: object = object()
        self.alias = "default"
        self.in_atomic_block = False
        self.errors_occurred = False
        self.autocommit = True
        self.settings_dict = {"AUTOCOMMIT": True}
        self.close_at: float | None = None
        vars(self).update(changed)

    def open(self) -> None:
        connection_created.send(type(self), connection=self)


@pytest.fixture
def sweeps() -> Iterator[list[int]]:
    """The threads in which `close_old_connections` was called."""
    threads: list[int] = []

    def close_old_connections() -> None:
        threads.append(threading.get_ident())

    with mock.patch("channels.db.close_old_connections", close_old_connections):
        yield threads


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Nor by the tests of another module, whose threads may live on."""
    channels.db._left_open.clear()
    yield
    channels.db._left_open.clear()
    channels.db._threads.clear()


async def test_a_function_runs_between_two_sweeps_of_its_thread(sweeps: list[int]) -> None:
    def query(left: int, *, right: int) -> int:
        sweeps.append(-1)
        return left + right

    assert await database_sync_to_async(query)(1, right=2) == 3
    before, inside, after = sweeps
    assert inside == -1
    assert before == after != threading.get_ident()


async def test_the_second_sweep_follows_an_error(sweeps: list[int]) -> None:
    def query() -> None:
        raise LookupError("no such row")

    with pytest.raises(LookupError):
        await database_sync_to_async(query)()
    assert len(sweeps) == 2


async def test_it_decorates_methods(sweeps: list[int]) -> None:
    class Reader:
        rows = 3

        @database_sync_to_async
        def count(self, more: int) -> int:
            """How many."""
            return self.rows + more

    # asgiref's types do not know that the instance is passed.
    assert await Reader().count(4) == 7  # type: ignore[call-arg,arg-type]
    assert Reader.count.__doc__ == "How many."


async def test_asgirefs_options_are_taken(sweeps: list[int]) -> None:
    parallel = threading.Barrier(2)
    wait = database_sync_to_async(parallel.wait, thread_sensitive=False)
    assert isinstance(wait, DatabaseSyncToAsync)
    assert {await each for each in [asyncio.create_task(wait(10)) for _ in "ab"]} == {0, 1}


def test_a_coroutine_function_is_refused() -> None:
    async def query() -> None: ...

    with pytest.raises(TypeError):
        database_sync_to_async(query)


async def test_aclose_old_connections_sweeps_the_thread_of_async_code(sweeps: list[int]) -> None:
    await aclose_old_connections()
    assert sweeps == [await sync_to_async(threading.get_ident)()]


async def test_nothing_is_swept_where_connections_carry_a_test(sweeps: list[int]) -> None:
    keeps_connections.set(True)
    await aclose_old_connections()
    await database_sync_to_async(lambda: None)()
    assert sweeps == []


@pytest.mark.parametrize(
    "changed",
    [{"close_at": 0.0}, {"errors_occurred": True}, {"autocommit": False}],
    ids=["outlived its age", "failed", "autocommit not restored"],
)
async def test_an_old_connection_of_a_watched_task_is_closed(
    sweeps: list[int], changed: dict[str, Any]
) -> None:
    watch_connections()
    opened = StubConnection(**changed)
    await sync_to_async(opened.open)()
    await close_left_open()
    assert len(sweeps) == 1
    await close_left_open()
    assert len(sweeps) == 1, "a connection that could not be closed is not tried again"


@pytest.mark.parametrize(
    "changed",
    [{}, {"close_at": 0.0, "connection": None}, {"close_at": 0.0, "in_atomic_block": True}],
    ids=["young", "closed already", "in a transaction"],
)
async def test_no_hop_for_a_connection_that_may_stay(
    sweeps: list[int], changed: dict[str, Any]
) -> None:
    watch_connections()
    opened = StubConnection(**changed)
    await sync_to_async(opened.open)()
    await close_left_open()
    assert sweeps == []


async def test_a_connection_that_grows_old_is_closed_then(sweeps: list[int]) -> None:
    watch_connections()
    opened = StubConnection()
    await sync_to_async(opened.open)()
    await close_left_open()
    opened.close_at = 0.0
    await close_left_open()
    assert len(sweeps) == 1


async def test_others_connections_are_left_alone(sweeps: list[int]) -> None:
    """Of tasks that are not watched, of Django's requests, and those that close themselves."""
    strange, requests, swept = (StubConnection(close_at=0.0) for _ in range(3))
    await sync_to_async(strange.open)()
    async with ThreadSensitiveContext():
        await sync_to_async(requests.open)()
    watch_connections()
    await database_sync_to_async(swept.open, thread_sensitive=False)()
    requests.errors_occurred = swept.errors_occurred = True
    sweeps.clear()
    await close_left_open()
    assert sweeps == []


async def test_anybodys_failed_connection_is_closed(sweeps: list[int]) -> None:
    """A middleware's for example, which has opened it before a consumer began."""
    strange = StubConnection()
    await sync_to_async(strange.open)()
    watch_connections()
    await close_left_open()
    assert sweeps == []
    strange.errors_occurred = True
    await close_left_open()
    assert sweeps == [await sync_to_async(threading.get_ident)()]


async def test_what_lives_in_another_thread_costs_one_hop_and_hides_nothing(
    sweeps: list[int],
) -> None:
    elsewhere, here = StubConnection(errors_occurred=True), StubConnection()
    await asyncio.to_thread(elsewhere.open)
    await sync_to_async(here.open)()
    await close_left_open()
    assert len(sweeps) == 1
    await close_left_open()
    assert len(sweeps) == 1
    here.errors_occurred = True
    await close_left_open()
    assert len(sweeps) == 2


@pytest.mark.django_db
async def test_a_connection_in_a_transaction_is_not_swept(sweeps: list[int]) -> None:
    def inside() -> None:
        with transaction.atomic():
            async_to_sync(database_sync_to_async(lambda: sweeps.append(0)))()
        # SQLite's own `close` leaves a database in memory open, here until the thread ends; one
        # that a communicator has lent to this thread is the test's.
        if not isinstance(connections[connection.alias], LentConnection):
            BaseDatabaseWrapper.close(connection)

    await sync_to_async(inside)()
    assert sweeps == [0]


@pytest.mark.django_db
def test_a_lent_connection_is_used_until_its_transaction_is_over() -> None:
    (lender,) = in_transactions()

    def is_used() -> bool:
        return getattr(connections[lender.alias], "lender", None) is lender

    with ThreadPoolExecutor(1) as pool:
        pool.submit(use_connections, [lender]).result()
        pool.submit(sweep).result()
        assert pool.submit(is_used).result()
        with mock.patch.object(lender, "in_atomic_block", False):
            pool.submit(sweep).result()
        assert not pool.submit(is_used).result()
    assert connections[lender.alias] is lender


def test_a_connection_left_by_another_test_fails_none_that_may_use_no_database(
    django_db_blocker: Any,
) -> None:
    with ThreadPoolExecutor(1) as pool:

        async def in_the_thread(function: Callable[[], None]) -> None:
            await database_sync_to_async(function, thread_sensitive=False, executor=pool)()

        def open_it() -> None:
            connection.ensure_connection()

        with django_db_blocker.unblock():
            asyncio.run(in_the_thread(open_it))
        # What SQLite keeps in memory stays open, whatever its age.
        assert pool.submit(lambda: connection.connection is not None).result()
        asyncio.run(in_the_thread(lambda: None))
        pool.submit(lambda: BaseDatabaseWrapper.close(connection)).result()
