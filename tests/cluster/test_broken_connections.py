"""Connections to the database that the server has cut: replaced after one failure, whoever opened
them.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from django.db import Error, models
from django.db.backends.signals import connection_created

from channels.consumer import AsyncConsumer, SyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.kit.types import Message, Receive, Scope, Send
from channels.layers import InMemoryChannelLayer
from channels.routing import ProtocolTypeRouter
from channels.worker import Worker
from tests.applications import call
from tests.cluster.traffic import until
from tests.consumer.conftest import no_layers, server
from tests.consumer.stubs import ForeignServer
from tests.layers.databases import alias, postgres_dsn

__all__ = ["alias", "no_layers", "postgres_dsn", "server"]

#: An hour: a connection stays open between two uses.
PERSISTENT = 3600

pytestmark = pytest.mark.timeout(120)


class Catalog(models.Model):
    """A table that every PostgreSQL has."""

    datname = models.TextField(primary_key=True)

    class Meta:
        managed = False
        db_table = "pg_database"
        app_label = "tests_of_broken_connections"


class Database:
    """An alias, and a way to cut all its connections at the server."""

    def __init__(self, name: str, dsn: str, program: str, max_age: int) -> None:
        self.name = name
        self.max_age = max_age
        self._dsn = dsn
        self._program = program

    def cut(self) -> int:
        """Cut the connections; how many there were."""
        return self._each("pg_terminate_backend(pid)")

    def count(self) -> int:
        return self._each("pid")

    def _each(self, what: str) -> int:
        import psycopg

        with psycopg.connect(self._dsn, autocommit=True) as connection:
            return connection.execute(
                f"select {what} from pg_stat_activity where application_name=%s", [self._program]
            ).rowcount

    @property
    def rows(self) -> Any:
        return models.QuerySet(Catalog, using=self.name)

    async def ask(self) -> str:
        """Use the database from async code."""
        try:
            await self.rows.aexists()
        except Error:
            return "failed"
        return "ok"

    def ask_sync(self) -> str:
        """Use it from the thread that this runs in."""
        try:
            self.rows.exists()
        except Error:
            return "failed"
        return "ok"


@pytest.fixture(params=[0, PERSISTENT], ids=["CONN_MAX_AGE=0", "CONN_MAX_AGE=3600"])
def database(request: Any, postgres_dsn: str, alias: Callable[..., str]) -> Iterator[Database]:
    from psycopg.conninfo import conninfo_to_dict

    found = conninfo_to_dict(postgres_dsn)
    program = f"channels-{uuid.uuid4().hex}"
    name = alias(
        f"cut_{program[-8:]}",
        ENGINE="django.db.backends.postgresql",
        NAME=found["dbname"],
        USER=found.get("user", ""),
        PASSWORD=found.get("password", ""),
        HOST=found.get("host", ""),
        PORT=found.get("port", ""),
        CONN_MAX_AGE=request.param,
        OPTIONS={"application_name": program},
    )
    opened: list[Any] = []

    def note(connection: Any, **_: Any) -> None:
        opened.append(connection.connection)

    connection_created.connect(note)
    yield Database(name, postgres_dsn, program, request.param)
    connection_created.disconnect(note)
    for each in opened:
        # Persistent ones stay in threads that outlive the test.
        each.close()


Ask = Callable[[], Awaitable[str]]
WAYS = {
    "async ORM": lambda database: database.ask,
    "database_sync_to_async": lambda database: database_sync_to_async(database.ask_sync),
    "database_sync_to_async, any thread": lambda database: database_sync_to_async(
        database.ask_sync, thread_sensitive=False
    ),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def asking(ask: Ask) -> type[AsyncConsumer]:
    class Asking(AsyncConsumer):
        async def websocket_receive(self, message: Message) -> None:
            await self.send({"type": "websocket.send", "text": await ask()})

        async def websocket_disconnect(self, message: Message) -> None:
            raise StopConsumer

    return Asking


async def answers(run: ForeignServer, count: int) -> list[str]:
    found = []
    for _ in range(count):
        run.tell("websocket.receive", text="?")
        found.append((await run.hear())["text"])
    return found


@ways
@pytest.mark.parametrize("opened_by", [None, *WAYS.values()], ids=["nobody", *WAYS])
async def test_a_consumers_broken_connection_fails_once(
    database: Database, server: type[ForeignServer], way: Any, opened_by: Any
) -> None:
    consumer = asking(way(database)).as_asgi()

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if opened_by is not None:
            assert await opened_by(database)() == "ok"
        await consumer(scope, receive, send)

    run = server(middleware)
    assert await answers(run, 2) == ["ok"] * 2
    await asyncio.to_thread(database.cut)
    found = await answers(run, 6)
    assert found.count("ok") >= 5, found
    run.tell("websocket.disconnect")
    await run.end()


async def test_a_sync_consumers_broken_connections_fail_once_in_all(
    database: Database, server: type[ForeignServer]
) -> None:
    """Each thread of the pool has one: the first that fails has the others tested."""
    together = threading.Barrier(4)

    class Asking(SyncConsumer):
        def websocket_receive(self, message: Message) -> None:
            answer = database.ask_sync()
            if message["text"] == "wait":
                together.wait(30)
            self.send({"type": "websocket.send", "text": answer})

        def websocket_disconnect(self, message: Message) -> None:
            raise StopConsumer

    runs = [server(Asking) for _ in range(4)]
    for run in runs:
        run.tell("websocket.receive", text="wait")
    assert [(await run.hear())["text"] for run in runs] == ["ok"] * 4
    if not database.max_age:
        # A thread answers first and closes its connection then.
        await until(lambda: not database.count(), "the connections closed")
    cut = await asyncio.to_thread(database.cut)
    assert cut == (4 if database.max_age else 0)
    found = [answer for run in runs for answer in await answers(run, 4)]
    assert found.count("failed") == (1 if cut else 0), found
    for run in runs:
        run.tell("websocket.disconnect")
        await run.end()


@ways
async def test_an_http_consumers_broken_connection_fails_once(database: Database, way: Any) -> None:
    class Asking(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, (await way(database)()).encode())

    async def visit() -> bytes:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        _, sent = await call(Asking.as_asgi(), scope, {"type": "http.request", "body": b""})
        found: bytes = sent["body"]
        return found

    assert await visit() == b"ok"
    await asyncio.to_thread(database.cut)
    found = [await visit() for _ in range(6)]
    assert found.count(b"ok") >= 5, found


@ways
async def test_a_workers_broken_connection_fails_once(database: Database, way: Any) -> None:
    answered: asyncio.Queue[str] = asyncio.Queue()

    class Asking(AsyncConsumer):
        async def ask_now(self, message: Message) -> None:
            answered.put_nowait(await way(database)())

    layer = InMemoryChannelLayer()
    worker = Worker(Asking.as_asgi(), ["jobs"], layer)
    working = asyncio.create_task(worker.handle())

    async def ask() -> str:
        await layer.send("jobs", {"type": "ask.now"})
        return await answered.get()

    assert await ask() == "ok"
    await asyncio.to_thread(database.cut)
    found = [await ask() for _ in range(6)]
    assert found.count("ok") >= 5, found
    worker.request_stop()
    await working
    await layer.close()


@ways
async def test_a_middlewares_broken_connection_fails_once(database: Database, way: Any) -> None:
    """No consumer is reached while it fails: the router sees to it."""
    seen: list[str] = []

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await way(database)())

    router = ProtocolTypeRouter({"websocket": middleware, "http": middleware})
    await call(router, {"type": "websocket"})
    await asyncio.to_thread(database.cut)
    for kind in ("websocket", "http") * 3:
        await call(router, {"type": kind})
    assert seen.count("ok") >= 6, seen
