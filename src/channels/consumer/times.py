"""How long handlers take, and how long a layer's messages are on their way to them.

Labels are names of the site's code, never what a client or a sender has written.
"""

from __future__ import annotations

import time
from typing import Any, Final

from channels.kit.histograms import Histogram, Histograms
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

#: The label of a message that no handler has.
_NO_HANDLER: Final = "none"
#: (consumer class, message type) -> its histogram; only of types that have a handler.
_known: Final[dict[tuple[type, str], Histogram]] = {}


def observe(consumer: Any, message: Message, mailbox: Mailbox, began: float) -> None:
    """Count a handler's time, and the time that a layer's message took to reach it.

    Args:
        began: When the handler was called, by the monotonic clock.
    """
    kind = type(consumer)
    key = kind, message.get("type", "")
    try:
        histogram = _known.get(key) or _find(*key)
    except TypeError:  # a type that is no string, nor hashable
        histogram = handler_times.of(kind.__qualname__, _NO_HANDLER)
    histogram.observe(time.monotonic() - began)
    if mailbox.handling_layer and mailbox.deadline is not None:
        # The deadline was set when it was sent: it needs no time stamp of its own.
        sent = mailbox.deadline - getattr(consumer.channel_layer, "expiry", 0.0)
        delivery_times.of(kind.__qualname__).observe(max(0.0, began - sent))


def _find(kind: type, message_type: str) -> Histogram:
    name = message_type.replace(".", "_") if isinstance(message_type, str) else ""
    if not (name.isidentifier() and hasattr(kind, name)):
        # Whoever sends to a layer can make up types.
        return handler_times.of(kind.__qualname__, _NO_HANDLER)
    histogram = handler_times.of(kind.__qualname__, name)
    # One handler has few spellings of its type; a table for each of them stays small.
    _known[kind, message_type] = histogram
    return histogram
