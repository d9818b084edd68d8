"""Real threads under gevent's monkey patch, which puts greenlets in the place of threads.

A greenlet that runs an event loop stops all others of its thread, so a loop that must run beside
them needs a thread of the operating system's.  What waits for that thread waits by gevent, or no
other greenlet would run meanwhile.
"""

from __future__ import annotations

import importlib
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], None], name: str) -> Future[None]:
    """Start a daemon thread of the operating system's; the future is done when `work` has ended."""
    ended: Future[None] = Future()

    def run() -> None:
        try:
            work()
        finally:
            ended.set_result(None)

    gevent = _patched_by("_thread")
    if gevent is None:
        threading.Thread(target=run, name=name, daemon=True).start()
    else:
        gevent.monkey.get_original("_thread", "start_new_thread")(run, ())
    return ended


def make_queue() -> queue.SimpleQueue[Any]:
    """A queue between threads of the operating system's."""
    gevent = _patched_by("queue")
    kind = queue.SimpleQueue
    if gevent is not None:
        kind = gevent.monkey.get_original("queue", "SimpleQueue")
    return kind()


def wait_for(outcome: Future[T], timeout_seconds: float | None) -> T:
    """The result of what another thread does.

    Raises:
        TimeoutError: If there is none in time.
    """
    gevent = _patched_by("threading")
    if gevent is None:
        return outcome.result(timeout_seconds)
    # A future's own condition would let gevent believe that nothing can ever wake this greenlet.
    woken = gevent.event.Event()
    news = gevent.get_hub().loop.async_()
    news.start(woken.set)
    is_waiting = True
    outcome.add_done_callback(lambda _: news.send() if is_waiting else None)
    try:
        woken.wait(timeout_seconds)
    finally:
        is_waiting = False
        news.close()
    return outcome.result(0)


def _patched_by(module: str) -> Any:
    """gevent, if it has patched this module of the standard library."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched(module):
        return None
    importlib.import_module("gevent.event")
    return sys.modules["gevent"]
