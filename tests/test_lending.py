"""Work in another thread sees a test's transaction, and else runs as if there were none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.db import database_sync_to_async, in_transactions, use_connections
from channels.lending import LentConnection
from channels.testing import ApplicationCommunicator
from tests.layers.databases import alias, postgres_alias, postgres_dsn, sqlite_alias

__all__ = ["alias", "postgres_alias", "postgres_dsn", "sqlite_alias"]

Elsewhere = Callable[[Callable[[], Any]], Any]


@pytest.fixture
def elsewhere(db: None) -> Iterator[Elsewhere]:
    """Runs a function in a thread that works in the test's transaction."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(use_connections, in_transactions()).result()
        yield lambda function: pool.submit(function).result()


def test_what_is_saved_there_is_in_the_transaction_of_the_test(elsewhere: Elsewhere) -> None:
    User.objects.create(username="made by the test")
    assert elsewhere(lambda: User.objects.get().username) == "made by the test"
    elsewhere(lambda: User.objects.create(username="made elsewhere"))
    assert User.objects.count() == 2


def test_a_callback_outside_of_a_block_runs_at_once(elsewhere: Elsewhere) -> None:
    ran: list[str] = []
    elsewhere(lambda: transaction.on_commit(partial(ran.append, "at once")))
    assert ran == ["at once"]


def test_a_callback_runs_when_the_outermost_block_has_ended(elsewhere: Elsewhere) -> None:
    def save() -> list[int]:
        ran: list[str] = []
        seen = []
        with transaction.atomic():
            with transaction.atomic():
                User.objects.create(username="made elsewhere")
                transaction.on_commit(partial(ran.append, "after the commit"))
            seen.append(len(ran))
        return [*seen, len(ran), User.objects.count()]

    assert elsewhere(save) == [0, 1, 1]


def test_a_block_without_savepoints_runs_its_callbacks_too(elsewhere: Elsewhere) -> None:
    def add() -> list[str]:
        ran: list[str] = []
        with transaction.atomic(savepoint=False):
            User.objects.create(username="made elsewhere").groups.add(Group.objects.create())
            transaction.on_commit(partial(ran.append, "after the commit"))
        return ran

    assert elsewhere(add) == ["after the commit"]


def test_a_block_that_fails_is_undone_and_what_was_before_it_stays(elsewhere: Elsewhere) -> None:
    ran: list[str] = []

    def fail() -> None:
        User.objects.create(username="made before")
        with transaction.atomic():
            User.objects.create(username="made within")
            transaction.on_commit(partial(ran.append, "after the commit"))
            raise LookupError

    User.objects.create(username="made by the test")
    with pytest.raises(LookupError):
        elsewhere(fail)
    assert list(User.objects.order_by("pk").values_list("username", flat=True)) == [
        "made by the test",
        "made before",
    ]
    assert ran == []


def test_a_statement_that_fails_in_a_block_leaves_the_test_s_transaction_usable(
    elsewhere: Elsewhere,
) -> None:
    def fail() -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            User.objects.create(username="made by the test")

    User.objects.create(username="made by the test")
    elsewhere(fail)
    assert User.objects.count() == 1


def test_a_durable_block_is_an_outermost_one(elsewhere: Elsewhere) -> None:
    def nested() -> None:
        with transaction.atomic(durable=True):
            User.objects.create(username="made elsewhere")
        with transaction.atomic(), transaction.atomic(durable=True):
            pass

    with pytest.raises(RuntimeError, match="durable"):
        elsewhere(nested)
    assert User.objects.count() == 1


def test_transactions_by_hand_commit_and_roll_back(elsewhere: Elsewhere) -> None:
    def by_hand() -> None:
        transaction.set_autocommit(False)
        User.objects.create(username="rolled back")
        transaction.rollback()
        transaction.set_autocommit(True)
        transaction.set_autocommit(False)
        User.objects.create(username="committed")
        transaction.commit()
        transaction.set_autocommit(True)

    elsewhere(by_hand)
    assert [each.username for each in User.objects.all()] == ["committed"]


def test_it_is_not_closed_and_the_test_counts_its_queries(elsewhere: Elsewhere) -> None:
    def close_and_count() -> int:
        lent = connections["default"]
        assert isinstance(lent, LentConnection)
        lent.close()
        return User.objects.count()

    with CaptureQueriesContext(connection) as queries:
        assert elsewhere(close_and_count) == 0
    assert len(queries) == 1
    assert User.objects.count() == 0


@pytest.mark.parametrize("database", ["sqlite_alias", "postgres_alias"])
def test_every_database_undoes_a_block_and_runs_the_callbacks_of_another(
    database: str, request: pytest.FixtureRequest
) -> None:
    using = request.getfixturevalue(database)
    ran: list[str] = []

    def execute(sql: str) -> list[Any]:
        with connections[using].cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def insert(number: int) -> None:
        with transaction.atomic(using=using):
            execute(f"INSERT INTO lent VALUES ({number})")
            transaction.on_commit(partial(ran.append, f"saved {number}"), using=using)
            if number == 2:
                raise LookupError

    with ThreadPoolExecutor(1) as pool, transaction.atomic(using=using):
        execute("CREATE TEMPORARY TABLE lent (number INTEGER)")
        pool.submit(use_connections, [connections[using]]).result()
        pool.submit(insert, 1).result()
        assert ran == ["saved 1"]
        with pytest.raises(LookupError):
            pool.submit(insert, 2).result()
        pool.submit(insert, 3).result()
        assert [tuple(row) for row in execute("SELECT number FROM lent")] == [(1,), (3,)]
        assert ran == ["saved 1", "saved 3"]
        transaction.set_rollback(True, using=using)


class AsyncSaver(AsyncConsumer):
    async def save(self, event: dict[str, Any]) -> None:
        await self.send({"type": "saved", "ran": await database_sync_to_async(save_group)()})


class SyncSaver(SyncConsumer):
    def save(self, event: dict[str, Any]) -> None:
        self.send({"type": "saved", "ran": save_group()})


def save_group() -> list[str]:
    ran: list[str] = []
    with transaction.atomic():
        Group.objects.create(name="made by the consumer")
        transaction.on_commit(partial(ran.append, "after the commit"))
    return ran


@pytest.mark.django_db
@pytest.mark.parametrize("consumer", [AsyncSaver, SyncSaver])
async def test_a_consumer_in_a_pytest_test_runs_its_callbacks(consumer: Any) -> None:
    communicator = ApplicationCommunicator(consumer(), {"type": "test"})
    await communicator.send_input({"type": "save"})
    assert await communicator.receive_output(5) == {"type": "saved", "ran": ["after the commit"]}
    communicator.stop()


@pytest.mark.django_db
async def test_so_does_the_test_s_own_code_beside_a_consumer() -> None:
    communicator = ApplicationCommunicator(AsyncSaver(), {"type": "test"})
    await communicator.send_input({"type": "save"})
    await communicator.receive_output(5)
    assert await sync_to_async(Group.objects.filter(name="made by the consumer").count)() == 1
    await database_sync_to_async(Group.objects.all().delete)()
    assert await database_sync_to_async(save_group)() == ["after the commit"]
    communicator.stop()
