"""How long handlers take, and how long a layer's messages are on their way to them.

Labels are names of the site's code, never what a client or a sender has written.
"""

from __future__ import annotations

from bisect import bisect_left
from time import monotonic
from typing import Any, Final

from channels.consumer.handlers import NO_HANDLER, handler_label
from channels.kit.histograms import BOUNDS, Histograms, add_time
from channels.kit.mailbox import Mailbox
from channels.kit.types import Message

handler_times: Final = Histograms(
    "channels_consumer_handler_seconds",
    "Time that handlers took, waits included, by consumer and handler.",
    ("consumer", "handler"),
)
delivery_times: Final = Histograms(
    "channels_layer_delivery_seconds",
    "Time from the sending of a layer's message to its handler, by consumer.",
    ("consumer",),
)

_FIRST: Final = BOUNDS[0]


class HandlerTimes:
    """The times of one consumer class: found once, because each message asks for them."""

    __slots__ = ("_class", "_delivery", "_handlers")

    def __init__(self, consumer_class: type) -> None:
        self._class = consumer_class
        #: By the types of messages that have a handler; whoever sends can make up others.
        self._handlers: dict[str, list[float]] = {}
        self._delivery = delivery_times.of(consumer_class.__qualname__)

    def observe(self, consumer: Any, message: Message, mailbox: Mailbox, began: float) -> None:
        """Count a handler's time, and the time that a layer's message took to reach it.

        Args:
            began: When the handler was called, by the monotonic clock.
        """
        try:
            values = self._handlers[message["type"]]
        except (KeyError, TypeError):
            values = self._find(message.get("type"))
        seconds = monotonic() - began
        # As `add_time` does it: this is what nearly every message runs.
        values[0 if seconds <= _FIRST else bisect_left(BOUNDS, seconds)] += 1
        values[-1] += seconds
        if mailbox.handling_layer and mailbox.deadline is not None:
            # The deadline was set when it was sent: it needs no time stamp of its own.
            expiry = getattr(consumer.channel_layer, "expiry", 0.0)
            add_time(self._delivery, began - mailbox.deadline + expiry)

    def _find(self, message_type: Any) -> list[float]:
        label = handler_label(self._class, message_type)
        found = handler_times.of(self._class.__qualname__, label)
        if label != NO_HANDLER:
            # A handler's name has few spellings as a type: the table stays small.
            self._handlers[message_type] = found
        return found
