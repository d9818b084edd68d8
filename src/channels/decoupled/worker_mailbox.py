"""The mailbox of a connection in a worker, which knows how far its consumer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from channels.kit.mailbox import Mailbox
from channels.kit.types import Message

#: Events that the worker, and no client, puts into it.
RESUME: Final = "websocket.resume"
RELEASE: Final = "websocket.release"
_INJECTED: Final = frozenset({RESUME, RELEASE})


class WorkerMailbox(Mailbox):
    """Tells when the handler of a client's event has returned."""

    __slots__ = ("_on_handled", "handled", "taken", "taken_bytes")

    def __init__(self, start: int, on_handled: Callable[[], None]) -> None:
        super().__init__()
        #: Sequence numbers of the event that was taken last, and of the last one that is handled.
        self.taken = self.handled = start
        #: Bytes of what was taken; whoever acknowledges it sets it back.
        self.taken_bytes = 0
        self._on_handled: Callable[[], None] | None = on_handled

    def settle(self) -> bool:
        self._note_handled()
        return super().settle()

    def release(self) -> None:
        """Tell nothing more."""
        self._on_handled = self.on_room = self.on_last_taken = None

    def take_waiting(self) -> list[Message]:
        """Remove and return the client's events that nobody has taken."""
        waiting = [event for event, _ in self._client]
        self._client.clear()
        self._client_bytes = 0
        self.client_is_full = False
        return waiting

    def _note_handled(self) -> None:
        if self.handled != self.taken:
            self.handled = self.taken
            if self._on_handled is not None:
                self._on_handled()

    def _take_client(self) -> Message:
        self._note_handled()
        before = self._client_bytes
        event = super()._take_client()
        if event["type"] not in _INJECTED:
            self.taken += 1
            self.taken_bytes += before - self._client_bytes
        return event
