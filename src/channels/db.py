"""Database access from async code, and old connections closed where they are.

A Django connection belongs to a thread, and only that thread may close it.  Sync code that runs
through `database_sync_to_async` closes old connections itself, before and after.  Async code that
uses the ORM leaves a connection behind in the thread that asgiref keeps for it; to close it costs a
hop to that thread.  So connections are watched as they open, and the hop is made only when one of
them has grown old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

P = ParamSpec("P")
R = TypeVar("R")

#: True in code whose connections must stay as they are: they carry a test's transaction.
keeps_connections: ContextVar[bool] = ContextVar("channels.keeps_connections", default=False)

#: True in a consumer's task, and so in the threads that work for it.
_watched: ContextVar[bool] = ContextVar("channels.watched", default=False)

_lock = threading.Lock()
#: Connections that consumers opened in threads that do not look after them.
_left_open: WeakSet[BaseDatabaseWrapper] = WeakSet()
_in_thread = threading.local()


class DatabaseSyncToAsync(SyncToAsync[P, R]):
    """asgiref's SyncToAsync for code that uses the database."""

    def __init__(self, func: Callable[P, R], *args: Any, **kwargs: Any) -> None:
        super().__init__(func, *args, **kwargs)
        # Wrapped here, not in thread_handler, because only here the caller's context is in force.
        self.func = _swept(func)


def _swept(func: Callable[P, R]) -> Callable[P, R]:
    @wraps(func)
    def between_sweeps(*args: P.args, **kwargs: P.kwargs) -> R:
        sweep()
        before = getattr(_in_thread, "sweeps", False)
        _in_thread.sweeps = True
        try:
            return func(*args, **kwargs)
        finally:
            _in_thread.sweeps = before
            sweep()

    return between_sweeps


#: A function, a decorator, and with `thread_sensitive=` or `executor=` whatever asgiref's is.
database_sync_to_async = DatabaseSyncToAsync


def sweep() -> None:
    """Close this thread's old connections, unless one of them carries a transaction.

    Code further out in this thread has begun that transaction, a TestCase for example, and Django
    would close even a young connection in the middle of it.
    """
    if not keeps_connections.get() and not any(
        connection.in_atomic_block for connection in connections.all(initialized_only=True)
    ):
        close_old_connections()


async def aclose_old_connections() -> None:
    """Close the old connections of the thread that async code's database calls run in."""
    if not keeps_connections.get():
        await sync_to_async(sweep)()


def watch_connections() -> None:
    """From here on, notice the connections that this task and its threads open."""
    _watched.set(True)


def are_left_open() -> bool:
    """True if async code of consumers left connections open, so that some may have grown old."""
    return bool(_left_open) and not keeps_connections.get()


async def close_left_open() -> None:
    """Close connections that async code of consumers left open and that have grown old.

    Costs a thread hop if there is such a connection, else nothing.
    """
    if not are_left_open() or not (old := _old_ones()):
        return
    await aclose_old_connections()
    # What is still old lives in a thread that cannot be reached from here: another's affair.
    with _lock:
        _left_open.difference_update(old)


def _old_ones() -> list[BaseDatabaseWrapper]:
    now = time.monotonic()
    with _lock:
        return [each for each in _left_open if _is_old(each, now)]


def _is_old(connection: BaseDatabaseWrapper, now: float) -> bool:
    if connection.connection is None or connection.in_atomic_block:
        return False
    closes_at = connection.close_at
    return (
        connection.errors_occurred
        or connection.autocommit != connection.settings_dict["AUTOCOMMIT"]
        or (closes_at is not None and now >= closes_at)
    )


def _opened(connection: BaseDatabaseWrapper, **_: object) -> None:
    if _watched.get() and not getattr(_in_thread, "sweeps", False):
        with _lock:
            _left_open.add(connection)


connection_created.connect(_opened, dispatch_uid="channels.db")
