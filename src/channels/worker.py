"""The worker: takes messages from named channels and hands each to the application.

One listener per channel.  A message goes to an instance of the application, which serves this
channel and keeps its state from message to message.  A channel has up to `parallel` instances;
while all of them are busy nothing is taken: what waits stays in the layer, for other workers.

A channel that the layer delivers at least once is read on lease: a message is acknowledged when its
handler has returned, tried again when it raised, given back when it was cancelled.  The lease that
an application works under is `scope["lease"]`.

Close order, at SIGTERM or `request_stop`: the listeners, so that nothing more is taken; the
instances, each when its handler has returned; after `shutdown_timeout` what still runs is
cancelled.  All of it takes `WorkerOptions.stop_seconds` at most, after which
`kit/process_exit.py` ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asgiref.server import StatelessServer

from channels.exceptions import ChannelLayerUnavailable, was_logged
from channels.kit.options import check_options, option
from channels.kit.printable import printable
from channels.kit.tasks import TaskScope
from channels.kit.types import Message, Scope
from channels.layers.process.leases import Lease, reason_of
from channels.middleware import single_callable
from channels.server.loops import call_on, layer_on_this_loop, run_until_stopped
from channels.server.notify import notify
from channels.status import answering

logger = logging.getLogger("django.channels.worker")

#: How long to wait before a layer that failed is asked again, at first and at most, in seconds.
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MOST_SECONDS: Final = 5.0

#: For cancelled handlers, and for their messages to be given back to the channel layer.
CANCEL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How much a worker does at once, and how it stops."""

    parallel: int = option(
        10,
        unit="handlers",
        minimum=1,
        help="handlers of one channel that run at once; 1 handles its messages in order",
    )
    shutdown_timeout: float | None = option(
        30.0,
        unit="seconds",
        minimum=0.0,
        none="until they end",
        help="time for running handlers when the worker stops; then they are cancelled",
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def stop_seconds(self) -> float | None:
        """The longest that a process takes to end, from the signal on; None for no bound.

        `shutdown_timeout` for handlers, 5 s for cancelled ones and the return of their messages,
        1 s each for the channel layer and other tasks, 1 s for the log and functions of atexit.
        """
        return None if self.shutdown_timeout is None else self.shutdown_timeout + 8.0


class ApplicationInstance:
    """One instance of the application, serving one channel, a message at a time."""

    def __init__(self, scope: Scope, on_change: Callable[[], None]) -> None:
        self.scope = scope
        self._on_change = on_change
        self._message: Message | None = None
        self._lease: Lease | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """True while the application waits for a message."""
        return self._waiter is not None and self._message is None

    @property
    def has_untaken(self) -> bool:
        """True if the application never asked for the message that it was started for."""
        return self._message is not None

    def give(self, message: Message, lease: Lease | None = None) -> None:
        """Hand over a message; only to an idle instance, or one that has not begun."""
        assert self._message is None, "an instance holds one message"
        self._message = message
        self._lease = lease
        if lease is not None:
            self.scope["lease"] = lease
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """The application's `receive`; whoever asks for the next message is done with the last."""
        if self._message is None:
            await self.finish()
            self._waiter = asyncio.get_running_loop().create_future()
            self._on_change()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message, self._message = self._message, None
        assert message is not None, "the waiter is woken by a message only"
        return message

    async def finish(self, error: BaseException | None = None) -> None:
        """End the lease of the message in hand, according to what became of its handler.

        A backend that is out of reach is not waited for: the lease runs out by itself.
        """
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            if isinstance(error, Exception):
                logger.warning(
                    "Channel %r: attempt %s of %s failed: %s",
                    lease.channel,
                    lease.attempts,
                    lease.delivery.max_attempts,
                    reason_of(error),
                )
                await lease.retry(reason=reason_of(error))
            elif error is not None or self.has_untaken:
                await lease.give_back()
            else:
                await lease.ack()
        except ChannelLayerUnavailable as problem:
            logger.warning("A message of %r may be handled again: %s", lease.channel, problem)


class Worker(StatelessServer):
    """Runs an application for the messages of some channels.

    Args:
        application: Called with scopes of type "channel".
        max_applications: Most instances of all channels together; idle ones make room.
    """

    def __init__(
        self,
        application: Any,
        channels: Sequence[str],
        channel_layer: Any,
        max_applications: int = 1000,
        options: WorkerOptions | None = None,
    ) -> None:
        if channel_layer is None:
            raise ValueError("Channel layer is not valid")
        if max_applications < 1:
            raise ValueError(f"max_applications={max_applications!r}: the least is 1.")
        super().__init__(single_callable(application), max_applications)  # type: ignore[no-untyped-call]
        self.channels = list(dict.fromkeys(channels))
        self.channel_layer = channel_layer
        self.options = options or WorkerOptions()
        self._instances: dict[str, list[ApplicationInstance]] = {
            channel: [] for channel in self.channels
        }
        self._applications = TaskScope("a worker's applications")
        self.counters: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._is_hurried = False
        #: Whether this is what the process does: a supervisor such as systemd is told of it.
        self.owns_process = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then finish what runs.  Blocks; has a loop of its own.

        A second signal ends it at once.
        """
        self.owns_process = threading.current_thread() is threading.main_thread()
        run_until_stopped(self, self.run_as_owner(), self.options.stop_seconds)

    def request_stop(self) -> None:
        """Finish what runs, then end `handle`; from any thread, at any time."""
        call_on(self._loop, self._stopping.set)

    def hurry(self) -> None:
        """Let a stop cancel what runs at once; from any thread."""
        call_on(self._loop, self._set_hurried)

    def _set_hurried(self) -> None:
        self._is_hurried = True
        self._changed.set()

    async def handle(self) -> None:
        """Work until `request_stop`, then finish what runs.

        Cancel safety: cancelled, it cancels the running handlers and awaits their ends.

        Raises:
            TypeError: If a channel's name breaks the rules.
        """
        for channel in self.channels:
            if hasattr(self.channel_layer, "require_valid_channel_name"):
                self.channel_layer.require_valid_channel_name(channel)
        self._loop = asyncio.get_running_loop()
        self._applications = TaskScope("a worker's applications")
        listeners = TaskScope("a worker's listeners")
        try:
            work = [
                listeners.spawn(self.listener(channel), name=channel, on_done=_leave_error)
                for channel in self.channels
            ]
            stop = listeners.spawn(self._until_stopping(), name="stop", on_done=_leave_error)
            self._notify("READY=1")
            done, _ = await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._notify("STOPPING=1")
            logger.info("Stopping: no more messages are taken, running handlers may end.")
            await listeners.close()
            await self._finish()
        finally:
            await listeners.close()
            await self._cancel_applications()
            self._loop = None

    def _notify(self, state: str) -> None:
        if self.owns_process:
            notify(state)

    async def application_send(self, scope: Scope, message: Message) -> None:
        """Override to take what applications send: a worker has no client that it could go to."""
        sent = printable(str(message.get("type")))
        raise NotImplementedError(
            f"The application of channel {scope['channel']!r} sent '{sent}', but a worker has no "
            "client: send to a channel or group of the channel layer instead."
        )

    async def application_exception(
        self, exception: Exception, application_details: Mapping[str, Any]
    ) -> None:
        """Override to report an application's failure elsewhere; this logs it, unless it was.

        Args:
            application_details: Its `scope`.
        """
        if was_logged(exception):
            return
        channel = application_details["scope"]["channel"]
        logger.error("The application of channel %r failed.", channel, exc_info=exception)

    def get_or_create_application_instance(self, scope_id: str, scope: Scope) -> ApplicationInput:
        """Where an overridden `listener` puts messages for the application of `scope`.

        Args:
            scope_id: The channel, which `scope` names too.
        """
        return ApplicationInput(self, {**scope, "channel": scope_id})

    async def run_as_owner(self) -> None:
        """`handle`, on a loop that may do the layer's I/O, for it lives as long as the process."""
        layer = self.channel_layer
        async with layer_on_this_loop(layer):
            try:
                async with answering(layer, "worker", self.statistics, self.channels):
                    await self.handle()
            finally:
                # Of a `handle` that was overridden.
                await self._cancel_applications()

    def statistics(self) -> dict[str, int]:
        """Messages taken and applications failed since it was made, and how many run now."""
        return {"busy": len(self._busy()), **self.counters}

    async def _until_stopping(self) -> None:
        await self._stopping.wait()

    async def listener(self, channel: str) -> None:
        """Take the messages of one channel; `handle` runs one for each."""
        while True:
            await self._wait_for_room(channel)
            message, lease = await self._take(channel)
            # No await from here to the instance: a message that was taken is not lost to a stop.
            if isinstance(message, dict) and "type" in message:
                self._give({"type": "channel", "channel": channel}, message, lease)
            elif lease is not None:
                with contextlib.suppress(ChannelLayerUnavailable):
                    await lease.reject("it has no type")
            else:
                logger.error("A message on channel %r has no type, it is dropped.", channel)

    async def _take(self, channel: str) -> tuple[Any, Lease | None]:
        layer, wait = self.channel_layer, RETRY_FIRST_SECONDS
        is_leased = hasattr(layer, "delivery_of") and layer.delivery_of(channel) is not None
        while True:
            try:
                if is_leased:
                    message, lease = await layer.receive_leased(channel)
                    return message, lease
                return await layer.receive(channel), None
            except (TypeError, NotImplementedError):
                raise
            except Exception:
                logger.exception("Cannot receive from %r; trying again.", channel)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_MOST_SECONDS)

    async def _wait_for_room(self, channel: str) -> None:
        while not self._has_room(channel):
            self._changed.clear()
            await self._changed.wait()

    def _has_room(self, channel: str) -> bool:
        instances = self._instances.setdefault(channel, [])
        if any(instance.is_idle for instance in instances):
            return True
        if len(instances) >= self.options.parallel:
            return False
        return sum(map(len, self._instances.values())) < self.max_applications or self._evict()

    def _evict(self) -> bool:
        """End an idle instance, of whatever channel, to make room; False if there is none."""
        for instances in self._instances.values():
            for instance in instances:
                if instance.is_idle and instance.task is not None:
                    instances.remove(instance)
                    instance.task.cancel()
                    return True
        return False

    def _give(self, scope: Scope, message: Message, lease: Lease | None = None) -> None:
        channel = scope["channel"]
        self.counters["taken"] += 1
        instances = self._instances[channel]
        for instance in instances:
            if instance.is_idle:
                instance.give(message, lease)
                return
        instance = ApplicationInstance(scope, self._changed.set)
        instance.give(message, lease)
        instances.append(instance)
        instance.task = self._applications.spawn(
            self._run_instance(instance), name=f"application of {channel}"
        )

    async def _run_instance(self, instance: ApplicationInstance) -> None:
        channel = instance.scope["channel"]

        async def send(event: Message) -> None:
            await self.application_send(instance.scope, event)

        try:
            await self.application(instance.scope, instance.receive, send)
            if instance.has_untaken:
                logger.error("The application of channel %r ended without receiving.", channel)
            await instance.finish()
        except Exception as error:
            self.counters["failed"] += 1
            try:
                await self.application_exception(error, {"scope": instance.scope})
            finally:
                await instance.finish(error)
        except asyncio.CancelledError as error:
            await instance.finish(error)
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._instances[channel].remove(instance)
            self._changed.set()

    async def _finish(self) -> None:
        """Wait until no instance is busy, for `shutdown_timeout` at most."""
        try:
            async with asyncio.timeout(self.options.shutdown_timeout):
                while self._busy() and not self._is_hurried:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            logger.warning(
                "%s handlers still run after %s seconds; they are cancelled.",
                len(self._busy()),
                self.options.shutdown_timeout,
            )

    async def _cancel_applications(self) -> None:
        """End what still runs; a handler that takes no cancellation must not keep the process."""
        try:
            await asyncio.wait_for(self._applications.close(), CANCEL_SECONDS)
        except TimeoutError:
            logger.error("%d handlers did not end when cancelled.", len(self._applications))

    def _busy(self) -> list[ApplicationInstance]:
        return [
            instance
            for instances in self._instances.values()
            for instance in instances
            if not instance.is_idle
        ]


class ApplicationInput:
    """Takes messages for the application of a channel."""

    def __init__(self, worker: Worker, scope: Scope) -> None:
        self._worker = worker
        self._scope = scope

    async def put(self, message: Message) -> None:
        """Hand over a message; waits while the channel has `parallel` busy handlers."""
        await self._worker._wait_for_room(self._scope["channel"])
        self.put_nowait(message)

    def put_nowait(self, message: Message) -> None:
        """Hand over a message.

        Raises:
            asyncio.QueueFull: If the channel has `parallel` busy handlers.
        """
        if not self._worker._has_room(self._scope["channel"]):
            raise asyncio.QueueFull
        self._worker._give(dict(self._scope), message)


def _leave_error(task: asyncio.Task[Any]) -> None:
    """`handle` looks at the results itself; this keeps the scope from logging them too."""
    if not task.cancelled():
        task.exception()
