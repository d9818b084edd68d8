"""What a consumer sends is held back until it has returned."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from channels.exceptions import ChannelFull

#: How long what a consumer has sent waits for room in its channels, all of it together.
FULL_SECONDS: Final = 2.0
#: Between two attempts.
RETRY_SECONDS: Final = 0.2


class PendingMessageStore:
    """What the consumer that runs in this thread has sent; it leaves when that has returned.

    A consumer thereby answers before another worker can act on what it has sent.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    @property
    def active(self) -> bool:
        """True while a consumer runs in this thread."""
        return hasattr(self._thread, "messages")

    def prepare(self, **_: Any) -> None:
        """Hold back, from now on, what this thread sends."""
        self._thread.messages = []

    def append(self, sender: Any, message: dict[str, Any]) -> None:
        """Hold one back.

        Args:
            sender: The channel or group that it goes to.
        """
        self._thread.messages.append((sender, message))

    def has_for(self, name: str) -> bool:
        """True if something is held back for the channel or group of this name."""
        messages = getattr(self._thread, "messages", ())
        return any(sender.name == name for sender, _ in messages)

    def send_and_flush(self, **_: Any) -> None:
        """As `flush`, and hold back no more."""
        try:
            self.flush()
        finally:
            self._thread.__dict__.pop("messages", None)

    def flush(self) -> None:
        """Send in order what was held back so far.

        Raises:
            RuntimeError: If a channel was full for 2 seconds; what goes elsewhere is sent first.
        """
        messages = getattr(self._thread, "messages", [])
        sent = list(messages)
        messages.clear()
        deadline = time.monotonic() + FULL_SECONDS
        full = [sender.name for sender, message in sent if not _sent(sender, message, deadline)]
        if full:
            raise RuntimeError(
                f"{len(full)} messages of a consumer were dropped: the channel {full[0]!r} was "
                f"full for {FULL_SECONDS} s."
            )

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold back what is sent in this block, and send it at its end, also after an error."""
        self.prepare()
        try:
            yield
        finally:
            self.send_and_flush()


def _sent(sender: Any, message: dict[str, Any], deadline: float) -> bool:
    """Send, trying again until the deadline while the channel is full; False if it stays full."""
    while True:
        try:
            sender.send(message, immediately=True)
        except ChannelFull:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(RETRY_SECONDS, left))
        else:
            return True


pending_message_store: Final = PendingMessageStore()
