"""The end of the interpreter: hubs hand over, sockets are closed, and nobody begins anew."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Final, Protocol


class HubUser(Protocol):
    """Whoever uses a hub from this process, and may run it."""

    def close_at_exit(self) -> None:
        """Hand over, and close what would be left open; on any thread."""


_users: Final[weakref.WeakSet[HubUser]] = weakref.WeakSet()
_exit: Final = threading.Event()
#: So that no hub starts unseen by `_close_all`.
_gate: Final = threading.Lock()


def watch_exit(user: HubUser) -> None:
    """Have it closed when the interpreter ends."""
    _users.add(user)
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def is_exiting() -> bool:
    """True once the interpreter is about to end: too late to become the hub."""
    return _exit.is_set()


@contextlib.contextmanager
def before_exit() -> Iterator[None]:
    """Around a hub's start: its user is closed after it, not meanwhile.

    Raises:
        RuntimeError: If the end has begun.
    """
    with _gate:
        if _exit.is_set():
            raise RuntimeError("The interpreter ends.")
        yield


def _close_all() -> None:
    # Not for ever: in a forked child it may have been held by a thread that was not copied.
    held = _gate.acquire(timeout=0.5)
    _exit.set()
    if held:
        _gate.release()
    for user in list(_users):
        user.close_at_exit()
