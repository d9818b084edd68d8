"""Database access from async code, and old connections closed where they are.

A Django connection belongs to a thread, and only that thread may close it.  Sync code that runs
through `database_sync_to_async` closes old connections itself, before and after.  Async code that
uses the ORM leaves a connection behind in the thread that asgiref keeps for it; to close it costs a
hop to that thread.  So connections are noted as they open, and the hop is made only when one of
them has grown old: one that a consumer opened by its age too, anybody else's, a middleware's for
example, only if it has failed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from channels.lending import lend

P = ParamSpec("P")
R = TypeVar("R")

#: True in code whose connections must stay as they are: they carry a test's transaction.
keeps_connections: ContextVar[bool] = ContextVar("channels.keeps_connections", default=False)

#: True in a consumer's task, and so in the threads that work for it.
_watched: ContextVar[bool] = ContextVar("channels.watched", default=False)

#: Connections are opened in any thread and looked at in others.
_lock = threading.Lock()
#: Connection -> its thread, and whether a consumer opened it.  Those of threads that only
#: `database_sync_to_async` works in, and of a request that Django handles, are not in it.
_left_open: Final[WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, bool]]] = WeakKeyDictionary()
#: Connection -> the thread that has opened it first.
_owners: Final[WeakKeyDictionary[BaseDatabaseWrapper, int]] = WeakKeyDictionary()
#: Loop -> the thread that its async code's database calls run in, once it is known.
_threads: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, int]] = WeakKeyDictionary()
#: Alias of a database -> when a connection to it was found broken.
_broken_at: Final[dict[str, float]] = {}
_in_thread = threading.local()


class DatabaseSyncToAsync(SyncToAsync[P, R]):
    """asgiref's SyncToAsync for code that uses the database."""

    def __init__(self, func: Callable[P, R], *args: Any, **kwargs: Any) -> None:
        super().__init__(func, *args, **kwargs)
        # Wrapped here, not in thread_handler, because only here the caller's context is in force.
        self.func = _swept(func, is_sole_user=not self._thread_sensitive)


def _swept(func: Callable[P, R], *, is_sole_user: bool) -> Callable[P, R]:
    """The function between two sweeps.

    Args:
        is_sole_user: Whether no async code's database calls run in its threads.
    """

    @wraps(func)
    def between_sweeps(*args: P.args, **kwargs: P.kwargs) -> R:
        sweep()
        before = getattr(_in_thread, "sweeps", False)
        _in_thread.sweeps = is_sole_user
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

    Once a connection is found broken, all threads test theirs to that database before they use
    them: a database that was restarted costs one failure, not one for each thread.
    """
    _return_connections()
    found: Sequence[Any] = connections.all(initialized_only=True)
    if keeps_connections.get() or any(each.in_atomic_block for each in found):
        return
    tested = vars(_in_thread).setdefault("tested", {})
    now = time.monotonic()
    failed = [each for each in found if each.errors_occurred and each.connection is not None]
    for each in found:
        if _broken_at.get(each.alias, 0.0) > tested.get(each.alias, 0.0):
            tested[each.alias] = now
            # Makes Django see whether it still works.
            each.errors_occurred = True
    try:
        close_old_connections()
    except RuntimeError as error:
        # pytest-django: this test may not use the database, and one before it that might has left
        # a connection in this thread.  To look at it would fail a test that did nothing wrong.
        if "Database access not allowed" not in str(error):
            raise
    for each in failed:
        if each.connection is None:
            _broken_at[each.alias] = tested[each.alias] = now


async def aclose_old_connections() -> None:
    """Close the old connections of the thread that async code's database calls run in."""
    if not keeps_connections.get():
        await sync_to_async(sweep)()


def in_transactions() -> list[BaseDatabaseWrapper]:
    """This thread's connections that are in a transaction, from sync and from async code."""
    here = threading.get_ident()
    with _lock:
        return [each for each, owner in _owners.items() if owner == here and each.in_atomic_block]


def use_connections(lenders: Sequence[BaseDatabaseWrapper]) -> None:
    """Work in the transactions of these in this thread, instead of with its own connections.

    The thread that lends them must not use them meanwhile.
    """
    _return_connections()
    own = {each.alias: each for each in connections.all(initialized_only=True)}
    for lender in lenders:
        before = own.get(lender.alias)
        if before is not lender and getattr(before, "lender", None) is not lender:
            lent = connections[lender.alias] = lend(lender)
            vars(_in_thread).setdefault("lent", []).append((lent, before))


def _return_connections() -> None:
    """Take this thread's own connections again for lent ones whose transaction is over."""
    lent = vars(_in_thread).get("lent", ())
    for each, before in [pair for pair in lent if pair[0].is_over]:
        lent.remove((each, before))
        if before is None:
            del connections[each.alias]
        else:
            connections[each.alias] = before


def watch_connections() -> None:
    """From here on, notice the connections that this task and its threads open."""
    _watched.set(True)


def are_left_open() -> bool:
    """True if connections are open that async code may use, so that some may have grown old."""
    return bool(_left_open) and not keeps_connections.get()


async def close_left_open() -> None:
    """Close the old ones among the connections that async code of this loop uses.

    Costs a thread hop if there is such a connection, else nothing.
    """
    if not are_left_open():
        return
    loop = asyncio.get_running_loop()
    # Another thread's connections cannot be reached from here.  A request that Django handles has
    # a thread of its own for its time.
    is_request = _is_request_of_django()
    if not _old_ones(None if is_request else _threads.get(loop)):
        return
    thread = await sync_to_async(_sweep_here)()
    if not is_request:
        _threads[loop] = thread


def _sweep_here() -> int:
    thread = threading.get_ident()
    sweep()
    # What is still open cannot be closed, a SQLite database in memory for example.
    for each in _old_ones(thread):
        with _lock:
            _left_open.pop(each, None)
    return thread


def _old_ones(thread: int | None) -> list[BaseDatabaseWrapper]:
    """The old connections of a thread; None: of any."""
    now, is_consumer = time.monotonic(), _watched.get()
    with _lock:
        return [
            connection
            for connection, (owner, is_consumers) in _left_open.items()
            if (thread is None or thread == owner)
            and _is_old(connection, now if is_consumer and is_consumers else None)
        ]


def _is_old(connection: BaseDatabaseWrapper, now: float | None) -> bool:
    """True if it has failed, or at `now` is past its age or not as Django left it."""
    if connection.connection is None or connection.in_atomic_block:
        return False
    if connection.errors_occurred or now is None:
        return connection.errors_occurred
    closes_at = connection.close_at
    return connection.autocommit != connection.settings_dict["AUTOCOMMIT"] or (
        closes_at is not None and now >= closes_at
    )


def _is_request_of_django() -> bool:
    return SyncToAsync.thread_sensitive_context.get(None) is not None


def _opened(connection: BaseDatabaseWrapper, **_: object) -> None:
    is_consumers = _watched.get()
    with _lock:
        _owners.setdefault(connection, threading.get_ident())
    if getattr(_in_thread, "sweeps", False) or (_is_request_of_django() and not is_consumers):
        return
    with _lock:
        _left_open[connection] = threading.get_ident(), is_consumers


connection_created.connect(_opened, dispatch_uid="channels.db")
