"""Workers of Channels 1: one process, some threads, every channel of the routing.

A message is taken only if a thread is free to handle it at once, whatever its channel: else it
waits in the layer, where another worker may be idle.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, ParamSpec, TypeVar

from channels import worker
from channels.db import database_sync_to_async
from channels.exceptions import ChannelLayerUnavailable
from channels.kit.process_exit import process_exit
from channels.kit.tasks import TaskScope
from channels.kit.types import Receive, Scope, Send
from channels.legacy.handling import Callback, MessageHandler
from channels.legacy.signals import worker_process_ready, worker_ready
from channels.server.loops import run_on_new_loop
from channels.worker import WorkerOptions

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedWorker(worker.Worker):
    """Takes messages from channels and handles each in a thread.

    Close order: as its base; a read that waits is cancelled with its listener, and takes nothing.

    Args:
        ready: Called in a thread once the channels are being read.
        options: `parallel` is the number of threads.
    """

    def __init__(
        self,
        channel_layer: Any,
        handler: MessageHandler,
        ready: Callable[[], None],
        options: WorkerOptions,
    ) -> None:
        super().__init__(self._handle_one, [], channel_layer, options.parallel, options)
        self._handler = handler
        self._ready = ready
        self._threads: ThreadPoolExecutor
        self._reads = TaskScope("a worker's reads")
        self._waiting: set[asyncio.Task[Any]] = set()
        #: The channels, the one that was served last at the end.
        self._turns: list[str] = []

    @property
    def is_busy(self) -> bool:
        """True while a consumer runs."""
        return bool(self._busy())

    def statistics(self) -> dict[str, int]:
        """Consumers that run now, messages taken, and what became of them."""
        return super().statistics() | self._handler.counts

    async def handle(self) -> None:
        """As its base."""
        self._reads = TaskScope("a worker's reads")
        self._turns = list(self.channels)
        self._threads = ThreadPoolExecutor(
            self.options.parallel, thread_name_prefix="channels-worker"
        )
        self._reads.spawn(self._announce(), name="ready")
        try:
            await super().handle()
        finally:
            await self._reads.close()
            self._threads.shutdown(wait=False)

    async def _handle_one(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """The application: handles one message."""
        message = await receive()
        await self._in_thread(self._handler.handle)(scope["channel"], message)

    async def _announce(self) -> None:
        # The listeners, which are started after this, have the first turn.
        await asyncio.sleep(0)
        await self._in_thread(self._ready)()

    def _in_thread(self, work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
        # Old connections to the database are closed before and after, in that thread.
        return database_sync_to_async(work, thread_sensitive=False, executor=self._threads)

    async def listener(self, channel: str) -> None:
        """Take the messages of one channel, while a thread is free."""
        while True:
            await self._wait_for_room(channel)
            read = self._reads.spawn(self._read(channel), name=channel)
            self._waiting.add(read)
            read.add_done_callback(self._waiting.discard)
            try:
                await asyncio.wait([read])
            finally:
                read.cancel()
            if not read.cancelled():
                read.result()

    async def _read(self, channel: str) -> None:
        """Take one message and hand it to a thread; if that was the last, recall other reads."""
        # Of several channels with messages the one that has waited longest has the first turn.
        for _ in range(self._turns.index(channel)):
            await asyncio.sleep(0)
        content, lease = await self._take(channel)
        # No await from here on: a message that was taken is not lost to a stop, and a read that is
        # cancelled before its next step takes nothing.
        self._waiting.discard(_this_task())
        self._turns.remove(channel)
        self._turns.append(channel)
        if isinstance(content, dict):
            self._give({"type": "channel", "channel": channel}, content, lease)
            if not self._has_room(channel):
                for read in self._waiting:
                    read.cancel()
            return
        reason = f"it must be a dict, found {type(content).__name__}."
        self._handler.drop("malformed", reason, channel)
        if lease is not None:
            with suppress(ChannelLayerUnavailable):
                await lease.reject(reason)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    return task


class Worker:
    """Handles the messages of a layer's channels, one at a time, until it is told to stop.

    Attributes:
        channel_layer: The layer, a `ChannelLayerWrapper`.
        termed: True once it was told to stop.
        counts: See `MessageHandler`.

    Args:
        callback: Called with channel and message before its consumer.
        message_retries: How often a message may be put back by ConsumeLater.
        signal_handlers: Whether SIGTERM and SIGINT stop it; in the main thread only.
        only_channels: Globs; other channels are left to other workers.
        exclude_channels: Globs of channels that are left to other workers.
        options: How it stops; `parallel` is of no effect here.

    Raises:
        ValueError: By `run`, if no channel of the routing is left.
    """

    def __init__(
        self,
        channel_layer: Any,
        callback: Callback | None = None,
        message_retries: int = 10,
        signal_handlers: bool = True,
        only_channels: Iterable[str] | None = None,
        exclude_channels: Iterable[str] | None = None,
        *,
        options: WorkerOptions | None = None,
        threads: int = 1,
    ) -> None:
        self.channel_layer = channel_layer
        self.signal_handlers = signal_handlers
        self.only_channels = _patterns(only_channels)
        self.exclude_channels = _patterns(exclude_channels)
        self.termed = False
        self._options = options or WorkerOptions()
        handler = MessageHandler(channel_layer, type(self), callback, message_retries)
        self.counts = handler.counts
        self._worker = ThreadedWorker(
            channel_layer.layer, handler, self.ready, replace(self._options, parallel=threads)
        )

    @property
    def in_job(self) -> bool:
        """True while a consumer runs."""
        return self._worker.is_busy

    def apply_channel_filters(self, channels: Iterable[str]) -> list[str]:
        """Those of some channels that this worker serves."""
        return [
            channel
            for channel in channels
            if (not self.only_channels or _matches(channel, self.only_channels))
            and not _matches(channel, self.exclude_channels)
        ]

    def ready(self) -> None:
        """Called, in a thread, once the channels are being read; sends the signals that say so."""
        worker_process_ready.send(sender=self)
        worker_ready.send(sender=self)

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or `request_stop`; then finish what runs.  Blocks."""
        self._set_channels()
        with ExitStack() as stack:
            if self.signal_handlers and threading.current_thread() is threading.main_thread():
                stack.enter_context(process_exit.serving(self, self._options.stop_seconds))
                self._worker.owns_process = True
            run_on_new_loop(self._worker.run_as_owner())

    async def handle(self) -> None:
        """The same on the running loop, without signals, until `request_stop`."""
        self._set_channels()
        await self._worker.handle()

    def request_stop(self) -> None:
        """Take no more messages and finish what runs; from any thread, at any time."""
        self.termed = True
        self._worker.request_stop()

    def hurry(self) -> None:
        """Wait for nothing any more; from any thread.  A consumer that runs cannot be ended."""
        self._worker.hurry()

    def _set_channels(self) -> None:
        known = sorted(self.channel_layer.router.channels)
        self._worker.channels = self.apply_channel_filters(known)
        if not self._worker.channels:
            raise ValueError(
                f"No channel is left to listen to: the routing has {', '.join(known) or 'none'}, "
                f"only_channels is {self.only_channels}, exclude_channels "
                f"{self.exclude_channels}."
            )


class WorkerGroup(Worker):
    """A worker with several threads.

    Args:
        n_threads: How many messages it handles at once; None: as many as there are processors.
        stop_gracefully: Whether consumers that run may end when it is told to stop.
    """

    def __init__(
        self, *args: Any, n_threads: int | None = None, stop_gracefully: bool = True, **kwargs: Any
    ) -> None:
        if not stop_gracefully:
            kwargs.setdefault("options", WorkerOptions(shutdown_timeout=0.0))
        super().__init__(*args, threads=n_threads or os.cpu_count() or 1, **kwargs)


def _patterns(given: Iterable[str] | None) -> Sequence[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _matches(channel: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(channel, pattern) for pattern in patterns)
