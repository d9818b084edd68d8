"""Events, the members who get them, and what happens on one event loop: callbacks and deliveries.

Posted callbacks share a wake-up: that takes 17 µs a call at 50 concurrent ones, where a wake-up for
each takes 60.  Deliveries keep the order in which they were submitted, over all groups and
channels: whoever sends to a channel and then to a group it is in reaches it in that order.

Both are served in slices.  A large group, or ten thousand readers who are woken at once, leave the
loop its turns, and leave the garbage collector nothing that looks long-lived: it goes through a
whole process when a quarter as many objects as that has survive two collections.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from channels.fanout.prepared import PreparedMessage
from channels.kit.doors import Sink
from channels.kit.types import Message

logger = logging.getLogger("channels.layers")

Loop = asyncio.AbstractEventLoop
#: What to call; or whom to wake, which spares an object for each of a crowd.
Call = Callable[[], object] | asyncio.Future[None]

#: How many are served before the loop has its turn.
SLICE_CALLS: Final = 1000
#: Callbacks that may wait for one loop; a loop that runs no more must not collect them for ever.
MAX_CALLS: Final = 100_000
#: A slice ends after so many members or so many seconds; the loop then serves others.
SLICE_MEMBERS: Final = 1000
SLICE_SECONDS: Final = 0.002
#: How many members are served between two looks at the clock.
_STRIDE: Final = 100
#: Deliveries that may wait for their turn on one loop; more are dropped and counted.
MAX_WAITING: Final = 10_000
#: The outbound event that needs no consumer, and all the keys that it may have.
OUTBOUND: Final = "websocket.send"
_OUTBOUND_KEYS: Final = frozenset({"type", "text", "bytes"})


def running_loop() -> Loop | None:
    """The loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Port:
    """Callbacks into one loop, from any thread, in order."""

    def __init__(self, loop: Loop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: deque[Call] = deque()
        self._is_woken = False

    def post(self, callback: Call) -> bool:
        """Run `callback` on the loop; False if it is closed or takes no more."""
        loop = self._loop()
        if loop is None or loop.is_closed() or len(self._waiting) >= MAX_CALLS:
            return False
        self._waiting.append(callback)
        if self._is_woken:
            return True
        # Set before the call: whoever appends from now on is served by this wake-up.
        self._is_woken = True
        try:
            loop.call_soon_threadsafe(self._serve)
        except RuntimeError:
            # Closed between the look and the call.
            self._waiting.clear()
            return False
        return True

    def _serve(self) -> None:
        # Reset first: a callback appended from here on wakes the loop again.
        self._is_woken = False
        for _ in range(min(len(self._waiting), SLICE_CALLS)):
            call = self._waiting.popleft()
            if isinstance(call, asyncio.Future):
                if not call.done():
                    call.set_result(None)
                continue
            try:
                call()
            except Exception:
                logger.exception("A callback from another thread failed")
        if self._waiting and not self._is_woken and (loop := self._loop()) is not None:
            self._is_woken = True
            loop.call_soon(self._serve)


def post(loop: Loop, callback: Call) -> bool:
    """Run `callback` on `loop`, or set it, if it is a future; False as `Port.post`."""
    port = _ports.get(loop)
    if port is None:
        # One step of the interpreter's: two threads get the same port.
        port = _ports.setdefault(loop, Port(loop))
    return port.post(callback)


_ports: weakref.WeakKeyDictionary[Loop, Port] = weakref.WeakKeyDictionary()


def forget_ports() -> None:
    """In a forked child: what waits there is the parent's."""
    _ports.clear()


class Event:
    """A decoded message, shared by all who get it.

    Attributes:
        size: Bytes that it counts for in a mailbox.
        deadline: Seconds by the monotonic clock after which it is void; None: never.
        prepared: Its frames, if it is an outbound event with either text or bytes.
    """

    __slots__ = ("deadline", "message", "prepared", "size")

    def __init__(self, message: Message, size: int = 0, deadline: float | None = None) -> None:
        self.message = message
        self.size = size
        self.deadline = deadline
        self.prepared = _prepare(message) if message.get("type") == OUTBOUND else None


def _prepare(message: Message) -> PreparedMessage | None:
    """None leaves the message to the consumer, which knows what is wrong with it."""
    text, data = message.get("text"), message.get("bytes")
    if not message.keys() <= _OUTBOUND_KEYS:
        return None
    if isinstance(text, str) and data is None:
        return PreparedMessage(text=text)
    if isinstance(data, bytes) and text is None:
        return PreparedMessage(data=data)
    return None


class Lane(Protocol):
    """The layer's side of a mailbox."""

    @property
    def displaced(self) -> int:
        """Events that made room for later ones, since it was made."""

    @property
    def expired(self) -> int:
        """Events that nobody took before their deadline."""

    @property
    def layer_size(self) -> int:
        """How many events wait."""

    @property
    def layer_is_clear(self) -> bool:
        """True if a frame may pass directly, because no event waits before it."""

    def put_layer(self, event: Message, size: int = 0, deadline: float | None = None) -> bool:
        """Add a shared event, copied when it is taken; False if it was dropped."""


@dataclass(slots=True, eq=False)
class Member:
    """A channel's mailbox, its loop, and the sink that ready frames may take instead.

    A frame takes the sink only while the mailbox's layer lane is clear; otherwise it would overtake
    an event that was sent before it.  Mailbox and sink are touched on their loop only; a member
    without a loop has a mailbox that any thread may fill.
    """

    mailbox: Lane
    loop: Loop | None
    sink: Sink | None = None
    #: How many groups it may be a member of; None: any number.
    most_groups: int | None = None


@dataclass(slots=True, eq=False)
class EventDelivery:
    """One event to the members of a group, or to one channel, and how far it has come."""

    name: str
    event: Event
    members: Sequence[Member]
    is_group: bool = True
    reached: int = 0
    #: Members that were passed over because they were full.
    full: int = 0


def deliver(delivery: EventDelivery, stop: int, counts: Counter[str]) -> None:
    """Serve the members from `delivery.reached` up to `stop`; no error of theirs leaves.

    Args:
        counts: What it came to, in the words of the statistics.
    """
    event, first = delivery.event, delivery.reached
    message, size, deadline, prepared = event.message, event.size, event.deadline, event.prepared
    whole = first == 0 and stop == len(delivery.members)
    members = delivery.members if whole else delivery.members[first:stop]
    full = framed = failed = 0
    for member in members:
        try:
            if (
                prepared is not None
                and (sink := member.sink) is not None
                and (form := sink.form) is not None
                and member.mailbox.layer_is_clear
            ):
                sink.write(prepared.frame(form))
                framed += 1
            elif not member.mailbox.put_layer(message, size, deadline):
                full += 1
        except Exception:
            failed += 1
            if failed == 1:
                logger.exception("A member of %s could not be reached", delivery.name)
    delivery.reached = stop
    delivery.full += full
    counts["delivered"] += len(members) - full - framed - failed
    if framed:
        counts["delivered_as_frames"] += framed
    if full or failed:
        counts["dropped_full"] += full
        counts["dropped_failed"] += failed


class Round:
    """The deliveries of one loop."""

    def __init__(
        self,
        loop: Loop,
        on_full: Callable[[EventDelivery], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._on_full = on_full
        self._clock = clock
        self._waiting: deque[EventDelivery] = deque()

    def __len__(self) -> int:
        """How many deliveries are not complete."""
        return len(self._waiting)

    def submit(self, delivery: EventDelivery) -> bool:
        """Deliver as far as a slice goes, the rest in later turns; any thread; False if dropped."""
        if self._loop is not running_loop():
            if post(self._loop, partial(self.submit, delivery)):
                return True
            self.counts["dropped_backlog"] += len(delivery.members)
            return False
        if self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                self.counts["dropped_backlog"] += len(delivery.members)
                return False
            self._waiting.append(delivery)
        elif len(delivery.members) <= _STRIDE:
            deliver(delivery, len(delivery.members), self.counts)
            if delivery.full:
                self._on_full(delivery)
        else:
            self._waiting.append(delivery)
            self._serve()
        return True

    def _serve(self) -> None:
        """One slice of what waits, small deliveries together."""
        until = self._clock() + SLICE_SECONDS
        budget = SLICE_MEMBERS
        while self._waiting and budget > 0:
            delivery = self._waiting[0]
            left = len(delivery.members) - delivery.reached
            step = min(left, budget, _STRIDE)
            deliver(delivery, delivery.reached + step, self.counts)
            budget -= max(1, step)
            if step == left:
                self._waiting.popleft()
                if delivery.full:
                    self._on_full(delivery)
            if self._clock() >= until:
                break
        if self._waiting:
            self._loop.call_soon(self._serve)
