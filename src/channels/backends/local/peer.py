"""One process, as the hub sees it: what it has joined, what waits to be written to it.

Three things go out in this order in each turn of the hub, to all peers the one before to any the
next: deliveries, answers, and what was leased from queues.  So a hub that is killed in between has
answered for nothing that it had not passed on (a group's message that comes twice is dropped by
its number), and hands no queue's message to a reader that its sender would send once more.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Final

from channels.backends.local.frames import (
    ANSWERED,
    GAP,
    LEASED,
    LEASED_BODY,
    NUMBER,
    REFUSED,
    REFUSED_BODY,
    frame,
)
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope

#: Octets read at a time; the next peer's turn comes after.
READ_OCTETS: Final = 256 * 1024


class HubPeer:
    """A connection to the hub.  No lock: all of it happens on the hub's thread.

    Args:
        dirty: Where peers stand that something is to be written to.
        since: When it connected, for those who never introduce themselves.
    """

    __slots__ = (
        "_answered",
        "_chunk",
        "_refusals",
        "connection",
        "dirty",
        "done",
        "groups",
        "is_lost",
        "is_ready",
        "is_welcome",
        "kept",
        "last_epoch",
        "leased",
        "mask",
        "missed",
        "node",
        "out",
        "out_octets",
        "pid",
        "since",
    )

    def __init__(
        self, connection: socket.socket, dirty: dict[HubPeer, None], since: float = 0.0
    ) -> None:
        self.connection = connection
        self.dirty = dirty
        self.since = since
        self.node = b""
        self.pid = 0
        self.last_epoch = b""
        self.kept = False
        self.is_ready = False
        self.is_welcome = False
        self.is_lost = False
        #: What the selector watches it for.
        self.mask = 0
        self.groups: set[bytes] = set()
        self.out: list[bytes] = []
        self.out_octets = 0
        #: Deliveries dropped because it does not read, not yet told.
        self.missed = 0
        #: Requests carried out.
        self.done = 0
        self._answered = 0
        # (number, frame)
        self._refusals: list[tuple[int, bytes]] = []
        #: Leased to it and not yet written.
        self.leased: deque[Leased] = deque()
        self._chunk = memoryview(b"")

    @property
    def owes_answers(self) -> bool:
        return self.done > self._answered or bool(self._refusals)

    def write(self, data: bytes) -> None:
        """Add a frame to what goes out at the end of the turn, whatever its bound."""
        self.out.append(data)
        self.out_octets += len(data)

    def refuse(self, reason: int, text: str) -> None:
        """The request in hand is not carried out."""
        self.done += 1
        body = REFUSED_BODY.pack(self.done, reason) + text.encode()
        self._refusals.append((self.done, frame(REFUSED, b"", body)))

    def write_answers(self) -> None:
        for number, refusal in self._refusals:
            # It says that all before it are done.
            self._answered = number
            self.write(refusal)
        self._refusals.clear()
        if self.done > self._answered:
            self._answered = self.done
            self.write(frame(ANSWERED, b"", NUMBER.pack(self.done)))

    def on_leased(self, leased: Leased) -> None:
        """The holder's answer to this peer's demand."""
        self.leased.append(leased)
        self.dirty[self] = None

    def write_leased(self) -> None:
        """Only once all else is written: what still stands here can go to another reader."""
        while self.leased:
            leased = self.leased.popleft()
            data = leased.data
            body = LEASED_BODY.pack(leased.token, min(leased.attempts, 255))
            body += data.encoded if isinstance(data, Envelope) else data
            self.write(frame(LEASED, leased.queue.encode(), body))

    def flush(self) -> bool:
        """Write as much as goes; True if nothing is left."""
        while True:
            if not self._chunk:
                if not self.out:
                    if not self.missed:
                        return True
                    self.missed = 0
                    self.write(frame(GAP))
                self._chunk = memoryview(b"".join(self.out))
                self.out = []
            try:
                written = self.connection.send(self._chunk)
            except BlockingIOError:
                return False
            except OSError:
                self.is_lost = True
                return True
            self._chunk = self._chunk[written:]
            self.out_octets -= written
