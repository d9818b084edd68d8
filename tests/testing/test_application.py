"""Applications under test see the test's database, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import TestCase

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.db import database_sync_to_async
from channels.testing import ApplicationCommunicator


class AsyncCounter(AsyncConsumer):
    async def count(self, event: dict[str, Any]) -> None:
        count = await database_sync_to_async(User.objects.count)()
        await self.send({"type": "counted", "count": count, "again": await User.objects.acount()})


class SyncCounter(SyncConsumer):
    def count(self, event: dict[str, Any]) -> None:
        User.objects.create(username="made by the consumer")
        self.send({"type": "counted", "count": User.objects.count() - 1, "again": 1})


class InsideATransaction(TestCase):
    """What the test has not committed, the consumer sees; nobody closes the connection."""

    def setUp(self) -> None:
        # As on disk: an in-memory database is never closed, which would hide the fault.
        patch = mock.patch.object(DatabaseWrapper, "is_in_memory_db", return_value=False)
        patch.start()
        self.addCleanup(patch.stop)
        User.objects.create(username="made by the test")

    async def test_async_consumer(self) -> None:
        await self.count(AsyncCounter)
        assert await User.objects.acount() == 1

    async def test_sync_consumer(self) -> None:
        await self.count(SyncCounter)
        assert await User.objects.acount() == 2

    async def test_the_test_itself_may_use_database_sync_to_async(self) -> None:
        assert await database_sync_to_async(User.objects.count)() == 1
        assert await User.objects.acount() == 1

    async def count(self, consumer: Any) -> None:
        communicator = ApplicationCommunicator(consumer(), {"type": "test"})
        await communicator.send_input({"type": "count"})
        said = await communicator.receive_output(5)
        assert said == {"type": "counted", "count": 1, "again": 1}
        communicator.stop()


@pytest.mark.django_db(transaction=True)
async def test_in_pytest_with_committed_data() -> None:
    await User.objects.acreate(username="made by the test")
    for consumer in (AsyncCounter, SyncCounter):
        communicator = ApplicationCommunicator(consumer(), {"type": "test"})
        await communicator.send_input({"type": "count"})
        assert await communicator.receive_output(5) == {"type": "counted", "count": 1, "again": 1}
        communicator.stop()


@pytest.fixture
def made_by_a_fixture(db: None) -> None:
    User.objects.create(username="made by the test")


@pytest.mark.django_db
@pytest.mark.parametrize("consumer", [AsyncCounter, SyncCounter])
@pytest.mark.parametrize("time", ["once", "again"])
async def test_in_pytest_within_the_test_s_transaction(
    consumer: Any, time: str, made_by_a_fixture: None
) -> None:
    communicator = ApplicationCommunicator(consumer(), {"type": "test"})
    await communicator.send_input({"type": "count"})
    assert await communicator.receive_output(5) == {"type": "counted", "count": 1, "again": 1}
    communicator.stop()
    # The test's own async code is in the transaction as well; what is left shows in the next.
    assert await User.objects.acount() == (2 if consumer is SyncCounter else 1)
    await User.objects.acreate(username="made after the consumer")


async def test_sync_handlers_run_in_the_thread_of_the_tests_database_calls() -> None:
    import threading

    class Where(SyncConsumer):
        def where(self, event: dict[str, Any]) -> None:
            self.send({"thread": threading.get_ident()})

    communicator = ApplicationCommunicator(Where(), {"type": "test"})
    await communicator.send_input({"type": "where"})
    said = await communicator.receive_output()
    assert said["thread"] == await sync_to_async(threading.get_ident)()
    communicator.stop()


async def test_the_error_of_an_application_is_raised_once_it_has_ended() -> None:
    class Broken(AsyncConsumer):
        async def broken(self, event: dict[str, Any]) -> None:
            raise LookupError("no such room")

    communicator = ApplicationCommunicator(Broken(), {"type": "test"})
    await communicator.send_input({"type": "broken"})
    with pytest.raises(LookupError, match="no such room"):
        await communicator.wait()
    with pytest.raises(LookupError):
        await communicator.send_input({"type": "broken"})
    with pytest.raises(LookupError):
        communicator.stop()
    communicator.stop(exceptions=False)


async def test_the_error_is_raised_without_waiting_for_the_timeout() -> None:
    class Broken(AsyncConsumer):
        async def broken(self, event: dict[str, Any]) -> None:
            await self.send({"type": "said"})
            raise LookupError("no such room")

    communicator = ApplicationCommunicator(Broken(), {"type": "test"})
    await communicator.send_input({"type": "broken"})
    assert await communicator.receive_output() == {"type": "said"}
    # Longer than the test may take.
    with pytest.raises(LookupError):
        await communicator.receive_output(1000)


async def test_a_communicator_that_is_dropped_leaves_no_task_and_no_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(AsyncConsumer):
        async def broken(self, event: dict[str, Any]) -> None:
            raise LookupError("never looked at")

    before = asyncio.all_tasks()
    running = ApplicationCommunicator(AsyncConsumer(), {"type": "test"})
    assert await running.receive_nothing(0.01)
    ended = ApplicationCommunicator(Broken(), {"type": "test"})
    await ended.send_input({"type": "broken"})
    await asyncio.wait([ended.future])
    del running, ended
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert [each for each in caplog.records if each.name == "asyncio"] == []


async def test_an_application_that_says_nothing_is_cancelled_by_the_timeout() -> None:
    communicator = ApplicationCommunicator(AsyncConsumer(), {"type": "test"})
    with pytest.raises(TimeoutError):
        await communicator.receive_output(0.01)
    with pytest.raises(asyncio.CancelledError):
        await communicator.send_input({"type": "late"})
