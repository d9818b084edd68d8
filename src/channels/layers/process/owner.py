"""The one event loop that does all I/O of a layer, and the thread that runs it if no server does.

A layer belongs to the process, not to a loop.  Its connections live on one loop: the server's or
the worker's, which offers it by `adopt_loop`, or else a daemon thread's, started when it is needed.
A loop that merely calls is not taken: a test's or `async_to_sync`'s may be gone the next moment.
Whoever calls from elsewhere comes in by one hop; nobody opens a connection for a call.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, TypeVar

from channels.exceptions import ChannelLayerUnavailable
from channels.fanout.delivery import Loop, forget_ports, post, running_loop
from channels.kit.greenlets import start_thread, wait_for
from channels.kit.tasks import TaskScope

T = TypeVar("T")


class _LoopThread:
    """The daemon thread whose loop owns layers in a process that has no server."""

    #: Seconds that saying good-bye to the brokers may take when the process ends.
    END_SECONDS: Final = 1.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._ended: Future[None] = Future()
        self._owners: weakref.WeakSet[OwnerLoop] = weakref.WeakSet()

    def loop(self, owner: OwnerLoop | None = None) -> Loop:
        """Its loop, running; started on first use.  `owner` is closed before the loop is."""
        with self._lock:
            if owner is not None:
                self._owners.add(owner)
            if self._loop is None or self._loop.is_closed():
                self._loop = loop = _new_loop()
                self._ended = start_thread(lambda: self._run(loop), "channels-layers")
                atexit.register(self.stop)
            return self._loop

    @staticmethod
    def _run(loop: Loop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def stop(self) -> None:
        """Close the layers that live here, stop the thread and close its loop.

        At the end of the process; it may be started again.
        """
        with self._lock:
            loop, ended, owners = self._loop, self._ended, list(self._owners)
            self._loop = None
            self._owners.clear()
        atexit.unregister(self.stop)
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError, TimeoutError):
                end = asyncio.run_coroutine_threadsafe(_end_all(owners), loop)
                wait_for(end, self.END_SECONDS)
            with contextlib.suppress(RuntimeError, TimeoutError):
                loop.call_soon_threadsafe(loop.stop)
                wait_for(ended, self.END_SECONDS)

    def forget(self) -> None:
        """In a forked child: the thread was not copied, and its loop is the parent's."""
        if self._loop is not None:
            # Its tasks will never end; the child has nothing to say about that.
            self._loop.set_exception_handler(lambda _loop, _context: None)
        self.__init__()  # type: ignore[misc]


def _new_loop() -> Loop:
    """A loop for the thread: uvloop's where there is one, which gevent does not patch either."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _end_all(owners: Iterable[OwnerLoop]) -> None:
    """Close these layers, then end what else runs on the loop."""
    ends = [owner.on_exit() for owner in owners if owner.on_exit is not None]
    await asyncio.gather(*ends, return_exceptions=True)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


loop_thread: Final = _LoopThread()


class OwnerLoop:
    """The one loop that a layer's transport lives on.

    Args:
        on_lost: Called when the owner loop was closed under the layer, before another takes over;
            on whatever thread found out.
        on_exit: Closes the layer, on its thread's loop, when the process ends.
    """

    def __init__(
        self,
        on_lost: Callable[[], None],
        on_exit: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._on_lost = on_lost
        self.on_exit = on_exit
        self._lock = threading.RLock()
        #: The owner loop; it may be closed by now.
        self.loop: Loop | None = None
        self._scope = TaskScope("channel layer")

    @property
    def current(self) -> Loop | None:
        """The owner loop if there is one that is not closed."""
        loop = self.loop
        if loop is not None and loop.is_closed():
            with self._lock:
                if self.loop is loop:
                    self.release()
                    self._on_lost()
            return None
        return loop

    def adopt(self, loop: Loop) -> bool:
        """Make `loop` the owner if there is none; False if another one is."""
        with self._lock:
            if self.current is None:
                self.loop = loop
            return self.loop is loop

    def release(self) -> None:
        """Have no owner loop until the next use."""
        with self._lock:
            self.loop = None
            self._scope = TaskScope("channel layer")

    def _require(self) -> Loop:
        with self._lock:
            loop = self.current
            if loop is None:
                loop = self.loop = loop_thread.loop(self)
            return loop

    def post(self, callback: Callable[[], None]) -> bool:
        """Run a callback on the owner loop, at once if this is it; False if there is none."""
        loop = self.current
        if loop is None:
            return False
        if loop is running_loop():
            callback()
            return True
        return post(loop, callback)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that belongs to the layer; only on the owner loop."""
        return self._scope.spawn(work, name=name)

    async def close_tasks(self) -> None:
        """Cancel and await all tasks of the layer; only on the owner loop."""
        await self._scope.close()
        self._scope = TaskScope("channel layer")

    async def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], timeout_seconds: float | None = None
    ) -> T:
        """Run a coroutine on the owner loop and give what it gives; cancelling cancels it there.

        Args:
            timeout_seconds: Bounds the wait for another loop, which may have stopped running.

        Raises:
            ChannelLayerUnavailable: If the owner loop did not answer in time, or was closed.
        """
        owner, mine = self._require(), asyncio.get_running_loop()
        if owner is mine:
            return await work()
        outcome = self._submit(owner, work)
        done: asyncio.Future[None] = mine.create_future()
        outcome.add_done_callback(lambda _: post(mine, done))
        # As asyncio.timeout, which takes 40 µs where a loop was made for this one call.
        timer = None
        if timeout_seconds is not None:
            timer = mine.call_later(timeout_seconds, _give_up, done)
        try:
            await done
            return outcome.result()
        finally:
            outcome.cancel()
            if timer is not None:
                timer.cancel()

    def call_sync(self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        """The same for a thread that runs no loop.

        Raises:
            TimeoutError: If there is no answer within `timeout` seconds.
        """
        outcome = self._submit(self._require(), work)
        try:
            return wait_for(outcome, timeout)
        finally:
            outcome.cancel()

    def _submit(self, owner: Loop, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        outcome: Future[T] = Future()
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            if outcome.cancelled():
                return
            try:
                task = self._scope.spawn(work(), on_done=lambda done: _settle(done, outcome))
            except RuntimeError:
                outcome.set_exception(ChannelLayerUnavailable("The channel layer is closing."))

        def stop() -> None:
            if task is not None:
                task.cancel()

        def give_up(done: Future[T]) -> None:
            if done.cancelled():
                post(owner, stop)

        outcome.add_done_callback(give_up)
        if not post(owner, start):
            outcome.set_exception(
                ChannelLayerUnavailable("The event loop that owns this layer has gone.")
            )
        return outcome


def _settle(done: asyncio.Task[T], outcome: Future[T]) -> None:
    # The caller may cancel on its own thread at any moment.
    with contextlib.suppress(InvalidStateError):
        if done.cancelled():
            outcome.set_exception(ChannelLayerUnavailable("The channel layer was closed."))
        elif (error := done.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(done.result())


def _give_up(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(
            ChannelLayerUnavailable(
                "The event loop that owns this layer's connections does not answer: it is blocked "
                "or no longer runs."
            )
        )


def watch_forks(target: Any) -> None:
    """Call `target.after_fork()` in children of this process, for as long as it lives."""
    _watching.add(target)


_watching: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    forget_ports()
    loop_thread.forget()
    for target in list(_watching):
        target.after_fork()


os.register_at_fork(after_in_child=_after_fork)
