"""Pings and pongs of one WebSocket: whether the peer lives, and whether it reads our answers.

Any byte of the peer counts as a sign of life, a pong is only the one that can be asked for.  So
does any byte of ours that its side takes while more wait: a slow reader has the ping behind all the
rest.  The peer's own pings are answered while there is room for the answers: one that sends pings
and reads nothing gets no more of them, and is not read either.
"""

from __future__ import annotations

from typing import Final

from channels.kit.limits import Timeouts
from channels.server.deadlines import Deadlines
from channels.server.seam import Outlet
from channels.wire.websocket import WebSocket

#: How often a connection whose pongs wait for room looks for it.
_PONG_RETRY_SECONDS: Final = 0.05


class Heartbeat:
    """Uses three deadlines: "ping", "pong" and "pongs"; whoever owns them calls what is due."""

    __slots__ = (
        "_asked_at",
        "_outlet",
        "_taken",
        "_timeouts",
        "deadlines",
        "heard",
        "machine",
        "waits",
    )

    def __init__(
        self, machine: WebSocket, outlet: Outlet, deadlines: Deadlines, timeouts: Timeouts
    ) -> None:
        self.machine = machine
        self._outlet = outlet
        self.deadlines = deadlines
        self._timeouts = timeouts
        #: What the peer had taken when the wait for a pong began.
        self._taken = 0
        #: Where in the stream of our bytes the ping ends whose pong is awaited.
        self._asked_at = 0
        #: True if anything came since the last ping that started the wait for a pong.
        self.heard = False
        #: True while our pongs wait for the peer to read: leave its socket unread.
        self.waits = False

    def start(self) -> None:
        """Ping from now on."""
        self.deadlines.set("ping", self._timeouts.ping_interval)

    def ping(self) -> None:
        """Send a ping, wait for an answer unless one is overdue already, and ping again."""
        self.machine.send_ping()
        self._outlet.write(self.machine.data_to_send())
        self.start()
        # What came since the last ping was its answer: this one starts a wait of its own, so that
        # silence is noticed within the interval and the timeout together.
        if self.heard or "pong" not in self.deadlines:
            self.heard = False
            self._taken = self._outlet.taken_bytes
            self._asked_at = self._taken + self._outlet.unread_bytes
            self.deadlines.set("pong", self._timeouts.ping_timeout)

    @property
    def is_read(self) -> bool:
        """True if the peer took bytes while a pong was awaited, and the ping is behind others.

        That its system took the ping is no sign of life: it does so for a program that hangs.
        """
        return self._taken < self._outlet.taken_bytes < self._asked_at

    def answer(self, pongs: bytes) -> None:
        """Write pongs; once the peer's side is full of unread ones, wait."""
        self._outlet.write(pongs)
        if self._outlet.is_full:
            self.waits = True
            self.deadlines.set("pongs", _PONG_RETRY_SECONDS)

    def look_for_room(self) -> bool:
        """False while the peer has still not read our pongs; then this is due again soon."""
        self.waits = self._outlet.is_full
        if self.waits:
            self.deadlines.set("pongs", _PONG_RETRY_SECONDS)
        return not self.waits
