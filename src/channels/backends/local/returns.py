"""What goes back to its queue, because its reader had gone when it came.

It survives the hub: what the end of a connection leaves unanswered is sent to the next one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import Final

from channels.backends.local import frames
from channels.backends.local.connection import Connection
from channels.backends.local.frames import frame, pack_many
from channels.exceptions import ChannelLayerUnavailable, TransportDown
from channels.layers.envelope import Envelope

#: Batches that wait for a hub.
MOST: Final = 10_000


class Returns:
    """The envelopes that one process gives back; what is dropped is counted in `counters`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._waiting: deque[tuple[str, Sequence[Envelope]]] = deque(maxlen=MOST)

    def put(self, queue: str, envelopes: Sequence[Envelope]) -> None:
        """Keep them until `send`."""
        if len(self._waiting) == MOST:
            self._counters["dropped_returned"] += 1
        self._waiting.append((queue, envelopes))

    def send(self, connection: Connection) -> None:
        """Send all that waits."""
        while self._waiting:
            queue, envelopes = self._waiting.popleft()
            # One by one, the last first: together they may be longer than a frame.
            for envelope in reversed(envelopes):
                body = pack_many([envelope.encoded])
                try:
                    answer = connection.request(frame(frames.GIVE_BACK, queue.encode(), body))
                except ChannelLayerUnavailable:
                    # Its buffer is full: the hub hangs.
                    self._counters["dropped_returned"] += 1
                    continue
                answer.add_done_callback(partial(self._on_answer, queue, envelope))

    def _on_answer(self, queue: str, envelope: Envelope, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and isinstance(answer.exception(), TransportDown):
            self._waiting.append((queue, [envelope]))
