"""The mailbox of one consumer: client events and layer events, served in turn.

Two lanes, because the two sources need different bounds.  The client's lane is never dropped from:
when it is full, whoever fills it stops reading the socket.  The layer's lane drops by a named rule,
because a group must not wait for its slowest member.  Taking from them alternately keeps a flood
in one from starving the other.

A mailbox belongs to one event loop.  One task takes from it; anything on that loop may put.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from channels.exceptions import InvalidOption
from channels.kit.limits import MIB
from channels.kit.types import Message

#: What becomes of a layer event that meets a full lane.
Overflow = Literal["drop_new", "drop_old", "latest", "close"]

#: Client events that may wait before the socket is left unread.
CLIENT_EVENTS: Final = 32
CLIENT_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class MailboxBounds:
    """How much may wait in the layer's lane, and what happens beyond it.

    `drop_new` refuses the new event, `drop_old` makes room by dropping the oldest, `latest` keeps
    only the new one, and `close` calls the mailbox's `on_overflow` (the consumer closes with 1013).
    The layer's own `capacity` and `capacity_bytes` hold for consumers that set no bounds.
    """

    capacity: int = 100
    capacity_bytes: int = 16 * MIB
    overflow: Overflow = "drop_new"

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.capacity_bytes < 1:
            raise InvalidOption(
                f"A mailbox holds at least one message and one byte: found capacity={self.capacity}"
                f", capacity_bytes={self.capacity_bytes}."
            )
        if self.overflow not in get_args(Overflow):
            raise InvalidOption(
                f"overflow={self.overflow!r} is not one of {', '.join(get_args(Overflow))}."
            )


DEFAULT_BOUNDS: Final = MailboxBounds()

#: The layer's lane of whoever has had no layer event yet: an empty deque takes 0.7 KiB.  Nothing is
#: ever put into this one.
_UNUSED: Final[deque[tuple[Message, int, float | None]]] = deque()


class Mailbox:
    """Two bounded lanes and one wake-up.

    Cancel safety: a cancelled `get` takes nothing.
    Order: first in, first out within a lane; lanes are served alternately while both hold events.
    """

    __slots__ = (
        "_client",
        "_client_bytes",
        "_layer",
        "_layer_bytes",
        "_layer_turn",
        "_waiter",
        "bounds",
        "client_is_full",
        "clock",
        "deadline",
        "displaced",
        "dropped",
        "expired",
        "gone",
        "handling_layer",
        "on_event",
        "on_gone",
        "on_last_taken",
        "on_overflow",
        "on_room",
    )

    def __init__(
        self,
        bounds: MailboxBounds = DEFAULT_BOUNDS,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds = bounds
        self.clock = clock
        # Short, and empty nearly always: a list is as fast here, and a tenth of a deque's size.
        self._client: list[tuple[Message, int]] = []
        self._layer = _UNUSED
        self._client_bytes = 0
        #: True while the client's lane holds its bound.
        self.client_is_full = False
        self._layer_bytes = 0
        self._layer_turn = False
        self._waiter: asyncio.Future[None] | None = None
        #: Layer events dropped because the lane was full, since the mailbox was made.
        self.dropped = 0
        #: Those of them that had been taken in, and made room for a later one.
        self.displaced = 0
        #: Layer events dropped because nobody took them before their deadline.
        self.expired = 0
        #: True from the moment a layer event was taken until the next `get` or `settle`.
        self.handling_layer = False
        #: Of the layer event that was taken last, if it has one.
        self.deadline: float | None = None
        #: Called once when the next event is put, in place of waking a `get`.
        self.on_event: Callable[[], None] | None = None
        #: Called when a full client lane has room again: go on reading the socket.
        self.on_room: Callable[[], None] | None = None
        #: Called once for each event that the rule "close" refuses.
        self.on_overflow: Callable[[], None] | None = None
        #: True once the client's last event is in the lane.
        self.gone = False
        #: Called when the client has gone.  A consumer that sets it sees to its own end; the server
        #: then cancels only an application that is still there after twice the close timeout.
        self.on_gone: Callable[[], None] | None = None
        #: Called when the client's last event is taken: all before it has been handled.
        self.on_last_taken: Callable[[], None] | None = None

    @property
    def layer_is_clear(self) -> bool:
        """True if no layer event waits or is being handled, so that a frame may pass directly."""
        return not self._layer and not self.handling_layer

    @property
    def is_awaited(self) -> bool:
        """True while a task waits in one of the `get`s."""
        return self._waiter is not None

    @property
    def client_size(self) -> int:
        """How many client events wait."""
        return len(self._client)

    @property
    def layer_size(self) -> int:
        """How many layer events wait."""
        return len(self._layer)

    def put_client(self, event: Message, size: int = 0) -> None:
        """Add a client event of `size` bytes; look at `client_is_full` afterwards."""
        self._client.append((event, size))
        self._client_bytes += size
        if self._client_bytes >= CLIENT_BYTES or len(self._client) >= CLIENT_EVENTS:
            self.client_is_full = True
        # As `_wake` does it: this is what a client's message runs.
        on_event = self.on_event
        if on_event is not None:
            self.on_event = None
            on_event()
        else:
            self._wake()

    def hold_client(self) -> None:
        """Count the client's lane as full until the next event is taken from it."""
        self.client_is_full = bool(self._client)

    def put_last(self, event: Message) -> None:
        """Add the client's last event: it has gone.  Later calls are ignored."""
        if self.gone:
            return
        self.gone = True
        self.put_client(event)
        if self.on_gone is not None:
            self.on_gone()

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:
        """Add a layer event of `size` bytes that is void after `deadline` (by `clock`).

        The event may be shared with other mailboxes: it is copied, one level deep, when taken.
        Returns False if the event was dropped.  An event larger than `capacity_bytes` still fits
        into an empty lane.
        """
        layer = self._layer
        if layer:
            if self._is_over(size):
                self._drop_expired()
                if not self._make_room(size):
                    return False
        elif layer is _UNUSED:
            layer = self._layer = deque()
        layer.append((event, size, deadline))
        self._layer_bytes += size
        # As `_wake` does it: this is what a message to a large group runs most often.
        on_event = self.on_event
        if on_event is not None:
            self.on_event = None
            on_event()
        elif self._waiter is not None:
            self._wake()
        return True

    def _wake(self) -> None:
        on_event, waiter = self.on_event, self._waiter
        if on_event is not None:
            self.on_event = None
            on_event()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _is_over(self, size: int) -> bool:
        return bool(self._layer) and (
            len(self._layer) >= self.bounds.capacity
            or self._layer_bytes + size > self.bounds.capacity_bytes
        )

    def _make_room(self, size: int) -> bool:
        if not self._is_over(size):
            return True
        rule = self.bounds.overflow
        if rule == "drop_old":
            while self._is_over(size):
                self._layer_bytes -= self._layer.popleft()[1]
                self.dropped += 1
                self.displaced += 1
            return True
        if rule == "latest":
            displaced = self.clear_layer()
            self.dropped += displaced
            self.displaced += displaced
            return True
        self.dropped += 1
        if rule == "close" and self.on_overflow is not None:
            self.on_overflow()
        return False

    def _drop_expired(self) -> None:
        now = self.clock()
        while self._layer:
            _, size, deadline = self._layer[0]
            if deadline is None or deadline > now:
                return
            self._layer.popleft()
            self._layer_bytes -= size
            self.expired += 1

    def clear_layer(self) -> int:
        """Forget all waiting layer events; returns how many there were."""
        count = len(self._layer)
        self._layer.clear()
        self._layer_bytes = 0
        return count

    def settle(self) -> bool:
        """Note that the event taken last has been handled; True if another waits."""
        if self._client or self._layer:
            return True
        self.handling_layer = False
        return False

    def peek_last(self) -> Message | None:
        """The client's last event, which stays in its lane, if it is the next one there."""
        return self._client[0][0] if self.gone and len(self._client) == 1 else None

    async def get(self) -> Message:
        """The next event of either lane, waiting for one if need be."""
        while (event := self.get_nowait()) is None:
            waiter = self._new_waiter()
            try:
                await waiter
            finally:
                self._waiter = None
        return event

    async def get_client(self) -> Message:
        """The next client event; layer events stay where they are."""
        while not self._client:
            await self._wait()
        return self._take_client()

    def get_client_nowait(self) -> Message | None:
        """The next client event, or None; layer events stay where they are."""
        return self._take_client() if self._client else None

    async def get_layer(self) -> Message:
        """The next layer event; client events stay where they are."""
        while True:
            event = self.get_layer_nowait()
            if event is not None:
                return event
            await self._wait()

    def get_nowait(self) -> Message | None:
        """The next event of either lane, or None."""
        if self._layer and (self._layer_turn or not self._client):
            event = self.get_layer_nowait()
            if event is not None:
                return event
        self._layer_turn = True
        self.handling_layer = False
        return self._take_client() if self._client else None

    def get_layer_nowait(self) -> Message | None:
        """The next layer event, or None."""
        self._layer_turn = False
        now = self.clock()
        while self._layer:
            event, size, deadline = self._layer.popleft()
            self._layer_bytes -= size
            if deadline is None or deadline > now:
                self.handling_layer = True
                self.deadline = deadline
                # `copy` keeps what a subclass knows beside its keys.
                return event.copy()
            self.expired += 1
        self.handling_layer = False
        return None

    def _take_client(self) -> Message:
        event, size = self._client.pop(0)
        self._client_bytes -= size
        if self.client_is_full:
            self.client_is_full = (
                self._client_bytes >= CLIENT_BYTES or len(self._client) >= CLIENT_EVENTS
            )
            if not self.client_is_full and self.on_room is not None:
                self.on_room()
        if self.gone and not self._client and self.on_last_taken is not None:
            self.on_last_taken()
        return event

    async def _wait(self) -> None:
        waiter = self._new_waiter()
        try:
            await waiter
        finally:
            self._waiter = None

    def _new_waiter(self) -> asyncio.Future[None]:
        """What the next event wakes; whoever awaits it takes it away afterwards."""
        if self._waiter is not None:
            raise RuntimeError("A mailbox has one reader; a second task asked for an event.")
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter
