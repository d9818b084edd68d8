"""What our server hands to a consumer beside ASGI's three arguments.

ASGI's `receive` and `send` cost a coroutine and an await for each event.  Under our own server a
consumer may step through this door instead: it takes events straight from the connection's mailbox,
and the layer may write ready frames straight to the connection's sink.

The door holds the very callables that the application was called with.  Whoever uses it must
compare them by identity with the ones it was given: if a middleware has put its own `send` or
`receive` in their place, that half of the door is shut, because the middleware wants to see the
events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from channels.kit.mailbox import Mailbox
from channels.kit.types import Receive, Scope, Send

#: The key in scope["extensions"].
DOOR: Final = "channels.door"


class Sink(Protocol):
    """A place for ready frames, owned by one connection."""

    @property
    def form(self) -> str | None:
        """Which form of a message the connection wants, or None while it takes no frame.

        None before accept, after close, and while more than the write buffer's bound is unsent.
        """

    def write(self, frame: bytes) -> None:
        """Send a frame of the present `form`; frames of one loop turn leave in one write."""


class Placement(Protocol):
    """The place of a consumer in a worker, from which its connection can be handed over.

    Attributes:
        socket: The channel of the client's socket, which the edge serves; "" if there is none.
    """

    socket: str

    def keep(self, snapshot: Callable[[], Mapping[str, Any]], on_crash: str) -> None:
        """Carry the consumer's state when the worker stops; and when it dies, unless "close".

        Args:
            snapshot: Called on the connection's loop while no handler runs.
        """

    async def release(self) -> bool:
        """Hand the connection over now; False if it stays here, for now or for good."""


@dataclass(slots=True)
class Door:
    """The way round ASGI's callables for a consumer that runs under our server."""

    receive: Receive
    send: Send
    mailbox: Mailbox
    sink: Sink | None = None
    #: Of the task that runs the application; Python 3.11 does not tell a task its own.
    context: Context | None = None
    #: In a worker of decoupled mode.
    placement: Placement | None = None


def find_mailbox(scope: Scope, receive: Receive) -> Mailbox | None:
    """The connection's mailbox, if `receive` is the server's own."""
    door = _door(scope)
    return door.mailbox if door is not None and door.receive is receive else None


def find_context(scope: Scope) -> Context | None:
    """The context of the server's call of the application; a task in between has a copy of it."""
    door = _door(scope)
    return door.context if door is not None else None


def find_placement(scope: Scope) -> Placement | None:
    """The consumer's place in a worker, if it runs in one."""
    door = _door(scope)
    return door.placement if door is not None else None


def find_sink(scope: Scope, send: Send) -> Sink | None:
    """The connection's sink, if `send` is the server's own."""
    door = _door(scope)
    return door.sink if door is not None and door.send is send else None


def rebuilt_door(scope: Scope, send: Send, own: Send) -> Scope:
    """A scope whose door stays open behind a middleware's own `send`.

    For one that changes nothing but `websocket.accept`, before which no sink takes a frame.

    Args:
        send: What the middleware was called with.
        own: What it calls the application with.
    """
    door = _door(scope)
    if door is None or door.send is not send:
        return scope
    return {**scope, "extensions": {**scope["extensions"], DOOR: replace(door, send=own)}}


def _door(scope: Scope) -> Door | None:
    extensions: Any = scope.get("extensions")
    door = extensions.get(DOOR) if extensions else None
    return door if isinstance(door, Door) else None
