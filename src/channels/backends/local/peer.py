"""One process, as the hub sees it: what it has joined, what waits to be sent to it.

Three things go out in this order in each turn of the hub, to all peers the one before to any the
next: deliveries, answers, and what was leased from queues.  So a hub that is killed in between has
answered for nothing that it had not passed on (a group's message that comes twice is dropped by
its number), and hands no queue's message to a reader that its sender would send once more.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any, Final

from channels.backends.local.connection import HubStream
from channels.backends.local.protocol import REQUESTS, STATEMENTS
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope

_KINDS: Final = {**STATEMENTS, **REQUESTS}


class HubPeer(HubStream):
    """A connection to the hub.  No lock: all of it happens on the hub's thread.

    Args:
        longest: Octets of the longest message that is taken.
        room: Where it is read into.
        since: When it connected, for those who never introduce themselves.
    """

    def __init__(
        self, connection: socket.socket, longest: int, room: memoryview, since: float = 0.0
    ) -> None:
        super().__init__(connection, longest, _KINDS, room)
        self.since = since
        self.node = ""
        self.pid = 0
        #: Its last hub, and whether it had all from that one.
        self.epoch = b""
        self.kept = False
        self.is_ready = False
        self.is_lost = False
        #: What the selector watches it for.
        self.mask = 0
        self.groups: set[str] = set()
        #: Deliveries were dropped because it does not read, and it was not told yet.
        self.has_missed = False
        #: Requests carried out, and those of them that are answered.
        self.done = self.answered = 0
        #: (number of the request, whether what it is about is no more, reason)
        self._refusals: list[tuple[int, bool, str]] = []
        #: Leased to it and not yet written.
        self.leased: deque[Leased] = deque()

    def say(self, *message: Any) -> None:
        """Add a message to what goes out at the end of the turn, whatever its bound."""
        self.write(self.pack(message))

    def refuse(self, is_gone: bool, reason: str) -> None:
        """The request in hand is not carried out."""
        self.done += 1
        self._refusals.append((self.done, is_gone, reason))

    def write_answers(self) -> None:
        for refusal in self._refusals:
            # It says that all before it are done.
            self.say("refused", *refusal)
            self.answered = refusal[0]
        self._refusals.clear()
        if self.done > self.answered:
            self.answered = self.done
            self.say("answered", self.done)

    def write_leased(self) -> None:
        """Only once all else is written: what still stands here can go to another reader."""
        while self.leased:
            queue, data, token, attempts = self.leased.popleft()
            octets = data.encoded if isinstance(data, Envelope) else data
            self.say("leased", queue, token, attempts, octets)

    def flush(self) -> None:
        """Send as much as goes."""
        try:
            if self.send_unsent() and self.has_missed:
                self.has_missed = False
                self.say("gap")
                self.send_unsent()
        except OSError:
            self.is_lost = True
