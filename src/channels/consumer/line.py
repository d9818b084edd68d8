"""A consumer's line to the world: one mailbox, and everything that fills it.

Under our own server the connection's mailbox is the consumer's, and our own layers put events
straight into it: no task beside the consumer's.  A foreign server's `receive()` and a third-party
layer's `receive(channel)` are each read by a task that puts what it gets into a mailbox of our own.

The line also notices that the client has gone while a handler runs: after the close timeout it
cancels the handler, so that `disconnect` still gets its turn.

Close order: the layer's channel, so that nothing new arrives; the tasks; the mailbox's callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from channels.fanout.delivery import Lane, Member
from channels.kit.doors import Sink, find_mailbox
from channels.kit.mailbox import Mailbox, MailboxBounds
from channels.kit.printable import printable
from channels.kit.tasks import TaskScope
from channels.kit.types import Message, Receive, Scope

logger = logging.getLogger("django.channels")

#: The events after which a client says no more.
LAST_EVENTS: Final = frozenset({"websocket.disconnect", "http.disconnect"})

#: The least time between two cancellations of one handler.
CUT_AGAIN_SECONDS: Final = 0.1

#: How long to wait before a third-party layer is asked again, at first and at most, in seconds.
RETRY_FIRST_SECONDS: Final = 0.1
RETRY_MOST_SECONDS: Final = 5.0


class Line:
    """The events of one connection, in the order in which they are to be handled.

    Belongs to the task that made it.
    """

    __slots__ = (
        "_channel",
        "_close_timeout",
        "_cuts",
        "_failure",
        "_hurried",
        "_layer",
        "_loop",
        "_room",
        "_scope",
        "_task",
        "_tasks",
        "_timer",
        "handling",
        "mailbox",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        bounds: MailboxBounds,
        close_timeout: float | None,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "an application runs in a task"
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._scope = scope
        self._close_timeout = close_timeout
        #: The event that is being handled, for the log.
        self.handling: Message | None = None
        self._layer: Any = None
        self._channel = ""
        self._tasks: TaskScope | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None
        self._cuts = 0
        self._hurried = False
        mailbox = find_mailbox(scope, receive)
        self._room: asyncio.Event | None = None
        if mailbox is None:
            mailbox = Mailbox(bounds)
            self._room = asyncio.Event()
            mailbox.on_room = self._room.set
        mailbox.bounds = bounds
        self.mailbox = mailbox
        mailbox.on_gone = self._gone
        if self._room is not None:
            self.spawn(self._read_client(receive, self._room), "client events")
        elif mailbox.gone:
            self._gone()

    def attach(
        self,
        layer: Any,
        channel: str,
        sink: Sink | None,
        lane: Lane | None = None,
        most_groups: int | None = None,
    ) -> None:
        """Take the events that a layer has for `channel`.

        Args:
            lane: Takes them in the mailbox's place, where the layer is one of ours.
            most_groups: How many groups of such a layer the channel may be a member of.
        """
        self._layer, self._channel = layer, channel
        if hasattr(layer, "attach"):
            layer.attach(channel, Member(lane or self.mailbox, self._loop, sink, most_groups))
        else:
            self.spawn(self._read_layer(layer.receive), f"layer events of {channel}")

    @property
    def is_over(self) -> bool:
        """True once the client's last event was taken: nothing can follow for a client."""
        return self.mailbox.gone and not self.mailbox.client_size

    @property
    def is_direct(self) -> bool:
        """True under our own server: `mailbox.get` gives all that `get` does, more cheaply."""
        return self._room is None

    async def get(self) -> Message:
        """The next event.

        Raises:
            Exception: What the server's `receive()` raised, after the events before it.
        """
        if self._room is not None and not self.mailbox.client_size:
            self._room.set()
        return self._checked(await self.mailbox.get())

    async def get_last(self) -> Message:
        """The client's last event; those before it are dropped."""
        while True:
            event = self._checked(await self.mailbox.get_client())
            if self.is_over:
                # Its handler gets a time of its own.
                self._cut_after(self._close_timeout)
                return event

    def _checked(self, event: Message) -> Message:
        if self._failure is not None and event is _FAILED:
            raise self._failure
        return event

    def hurry(self) -> None:
        """Cancel the handler that runs as soon as the client goes, without waiting."""
        self._hurried = True
        if self.mailbox.gone:
            self._gone()

    def was_cut(self) -> bool:
        """True if a cancellation that has just arrived is this line's own, and only that.

        Asking takes the cancellation back.
        """
        cuts, self._cuts = self._cuts, 0
        for _ in range(cuts):
            self._task.uncancel()
        return cuts > 0 and not self._task.cancelling()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something beside the consumer until the line is closed."""
        if self._tasks is None:
            self._tasks = TaskScope("a consumer")
        self._tasks.spawn(work, name=name)

    async def close(self) -> None:
        """Release everything; later events are the server's and the layer's affair."""
        mailbox = self.mailbox
        if self._layer is not None and hasattr(self._layer, "detach"):
            self._layer.detach(self._channel)
        if self._timer is not None:
            self._timer.cancel()
        mailbox.on_gone = mailbox.on_overflow = None
        if self._room is not None:
            mailbox.on_room = None
        if self._tasks is not None:
            await self._tasks.close()

    def _gone(self) -> None:
        self._cut_after(0.0 if self._hurried else self._close_timeout)

    def _cut_after(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._cut)

    def _cut(self) -> None:
        if self.handling is None:
            return
        logger.log(
            logging.DEBUG if self._hurried or self._cuts else logging.WARNING,
            "The client of %s has gone and the handler of '%s' still runs; it is cancelled.",
            name_of(self._scope),
            printable(str(self.handling.get("type"))),
        )
        self._hurried = False
        self._cuts += 1
        self._task.cancel()
        # Once more for a handler that swallows its cancellation, or cannot feel it yet.
        if self._close_timeout is not None:
            self._cut_after(max(self._close_timeout, CUT_AGAIN_SECONDS))

    async def _read_client(self, receive: Receive, room: asyncio.Event) -> None:
        # A worker's messages are taken one at a time: what waits here is lost if the worker dies.
        ahead = self._scope.get("type") != "channel"
        mailbox = self.mailbox
        try:
            while not mailbox.gone:
                if ahead and mailbox.client_is_full:
                    room.clear()
                if not ahead or mailbox.client_is_full:
                    await room.wait()
                event = await receive()
                if not ahead:
                    room.clear()
                if event.get("type") in LAST_EVENTS:
                    mailbox.put_last(event)
                else:
                    mailbox.put_client(event, _size(event))
        except Exception as error:
            self._failure = error
            mailbox.put_client(_FAILED)

    async def _read_layer(self, receive: Callable[[str], Awaitable[Message]]) -> None:
        wait = RETRY_FIRST_SECONDS
        while True:
            try:
                event = await receive(self._channel)
            except Exception:
                logger.exception("Cannot receive from %s; trying again.", self._channel)
                await asyncio.sleep(wait)
                wait = min(wait * 2, RETRY_MOST_SECONDS)
            else:
                wait = RETRY_FIRST_SECONDS
                self.mailbox.put_layer(event)


#: Wakes the consumer so that it raises what `receive()` raised.
_FAILED: Message = {}


def name_of(scope: Scope) -> str:
    """A connection's path, a worker's channel, or the type where there is neither, for the log."""
    if channel := scope.get("channel"):
        return f"channel '{printable(str(channel))}'"
    return printable(str(scope.get("path") or scope.get("type")))


def _size(event: Message) -> int:
    """The payload's bytes, or characters: a bound, not a measure."""
    return sum(len(event.get(key) or "") for key in ("text", "bytes", "body"))
