"""Where a tracer joins in: consumers' handlers, and messages that carry a trace.

A message carries it under a key of its own, which the layers' codec puts in and takes out again, so
that no handler and no `receive()` sees it.  A release that knows no such key shows it beside the
others; what has no key has no trace.  Without a tracer nothing is put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from channels.kit.types import Message

#: The key in a message on its way; reserved.
TRACE_KEY: Final = "channels.trace"
#: What goes to sockets as it is, and so to no handler.
_NO_HANDLER: Final = "websocket.send"
#: Fields of a trace that are taken from a message; more are nobody's.
_MOST_FIELDS: Final = 10


class HandlerSpan(Protocol):
    """The span of one call of a handler."""

    def end(self, error: BaseException | None) -> None:
        """The handler has returned, or raised."""


class Tracer(Protocol):
    """What makes spans and knows which is current."""

    def carry(self) -> Mapping[str, str]:
        """The current trace in a form that travels; empty if there is none."""

    def begin(self, consumer: Any, message: Message) -> HandlerSpan:
        """Begin the span of a handler, and make it the current one."""


class Tracing:
    """The process's tracer."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None

    def carried(self, message: Message) -> Message:
        """A message with the current trace, if there is one."""
        if self.tracer is None or message.get("type") == _NO_HANDLER:
            return message
        trace = self.tracer.carry()
        return {**message, TRACE_KEY: dict(trace)} if trace else message

    def received(self, message: Message) -> Message:
        """A message without its trace, which `trace_of` then gives to a tracer."""
        trace = message.pop(TRACE_KEY, None)
        if trace is None or self.tracer is None:
            return message
        found = TracedMessage(message)
        if isinstance(trace, dict) and len(trace) <= _MOST_FIELDS:
            # Whoever can send to the layer can write anything.
            found.trace = {
                name: value
                for name, value in trace.items()
                if isinstance(name, str) and isinstance(value, str)
            }
        return found


#: Of this process.
tracing: Final = Tracing()


class TracedMessage(Message):
    """A message, and the trace that it came with."""

    __slots__ = ("trace",)

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.trace: Mapping[str, str] = {}

    def copy(self) -> Message:
        """A copy with the same trace."""
        found = TracedMessage(self)
        found.trace = self.trace
        return found


def trace_of(message: Message) -> Mapping[str, str]:
    """The trace that a message of a layer came with; empty if there was none."""
    return message.trace if isinstance(message, TracedMessage) else {}
