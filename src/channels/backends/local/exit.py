"""The end of the interpreter: hubs hand over, sockets are closed, and nobody begins anew."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Final, Protocol


class LocalHub(Protocol):
    """A hub of this process."""

    def stop(self) -> None:
        """Hand over and end."""


class Client(Protocol):
    """Whoever uses hubs from this process."""

    def close_at_exit(self) -> None:
        """Close what would be left open; on any thread."""


_serving: Final[set[LocalHub]] = set()
_clients: Final[weakref.WeakSet[Client]] = weakref.WeakSet()
_exit: Final = threading.Event()
#: So that no hub starts unseen by `_stop_all`.
_gate: Final = threading.Lock()
_is_watching: list[bool] = []


def watch_exit(client: Client) -> None:
    """When the interpreter ends have this process's hubs hand over, and this client close."""
    _clients.add(client)
    if not _is_watching:
        _is_watching.append(True)
        atexit.register(_stop_all)


def is_exiting() -> bool:
    """True once the interpreter is about to end: too late to become the hub."""
    return _exit.is_set()


@contextlib.contextmanager
def serving(hub: LocalHub) -> Iterator[None]:
    """Around a hub's start: from then on it is stopped at the end.

    Raises:
        RuntimeError: If the end has begun.
    """
    with _gate:
        if _exit.is_set():
            raise RuntimeError("The interpreter ends.")
        yield
        _serving.add(hub)


def no_longer_serving(hub: LocalHub) -> None:
    """It has ended."""
    _serving.discard(hub)


def _stop_all() -> None:
    # Not for ever: in a forked child it may have been held by a thread that was not copied.
    held = _gate.acquire(timeout=0.5)
    _exit.set()
    if held:
        _gate.release()
    for hub in list(_serving):
        hub.stop()
    for client in list(_clients):
        client.close_at_exit()
