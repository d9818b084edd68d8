"""From the wire to the mailbox: what one WebSocket's frames may cost, and how slowly they may come.

what                        bound                                      beyond it
messages that wait          the mailbox's                              the socket is left unread
a read, whatever is in it   `stretch_ms` of the loop's time            the loop turns
pings and pongs             `max_control_rate`, over `RATE_SECONDS`    closed with 1008
messages, and their bytes   `max_message_rate`, `..._byte_rate`        closed with 1008
a frame that has begun      whole, or `min_frame_rate` over each       cut off
                            `frame_timeout`
"""

from __future__ import annotations

import time
from typing import Final

from channels.kit.allowance import RATE_SECONDS
from channels.kit.mailbox import Mailbox
from channels.kit.types import Address
from channels.server.cuts import cut_off
from channels.server.garbage import COUNTED_FROM_BYTES
from channels.server.message_meter import meter_of
from channels.server.seam import Outlet
from channels.server.service import Service
from channels.server.websocket_heartbeat import Heartbeat
from channels.server.websocket_messages import Stage
from channels.wire.assembly import POLICY_VIOLATION
from channels.wire.websocket import Ended, Received

#: How many frames are taken between two looks at the clock: each costs 1 to 30 µs.
STRIDE: Final = 16

#: Here, because Python 3.11 takes 0.1 µs to find a member in its class.
_OPEN: Final = Stage.OPEN
_CLOSED: Final = Stage.CLOSED


class Intake:
    """Uses the deadline "frame"; whoever owns it calls `is_too_slow` when that is due."""

    __slots__ = (
        "_client",
        "_control_since",
        "_controls",
        "_follows",
        "_heartbeat",
        "_limits",
        "_mailbox",
        "_meter",
        "_outlet",
        "_service",
        "_stretch_seconds",
        "_timeouts",
        "_turned",
        "is_paused",
        "received_bytes",
        "rests",
    )

    def __init__(
        self,
        service: Service,
        heartbeat: Heartbeat,
        mailbox: Mailbox,
        outlet: Outlet,
        client: Address | None,
    ) -> None:
        self._heartbeat = heartbeat
        self._mailbox = mailbox
        self._outlet = outlet
        self._client = client
        self._service = service
        self._limits = service.options.limits
        self._timeouts = service.options.timeouts
        self._stretch_seconds = self._limits.stretch_ms / 1000
        self._meter = meter_of(self._limits)
        self._turned = 0.0
        self._controls = 0
        self._control_since = 0.0
        #: True while the deadline is set.
        self._follows = False
        #: True while the socket is left unread.
        self.is_paused = False
        #: Set after frames that took all the time of a stretch, for whoever calls `pump` to reset
        #: once the loop has turned.
        self.rests = False
        #: Since the last look at the frame that has begun; whoever reads adds to it.
        self.received_bytes = 0

    def pump(self, stage: Stage) -> Ended | None:
        """Take events while there is room for them; leave the socket unread otherwise."""
        machine, mailbox = self._heartbeat.machine, self._mailbox
        ended = None
        taken, until = 0, 0.0
        waits = self._must_wait(stage)
        while not waits:
            event = machine.next_event()
            if event is None:
                if self._follows or machine.is_inside_frame:
                    self._follow(is_new=taken > 0)
                break
            taken += 1
            if isinstance(event, Received):
                if self._meter is not None and (over := self._meter.take(event.size)):
                    cut_off("message_rate", self._client, over)
                    ended = machine.fail(POLICY_VIOLATION, f"Too much: {over}.")
                    break
                if not mailbox.gone:
                    key = "text" if isinstance(event.data, str) else "bytes"
                    mailbox.put_client({"type": "websocket.receive", key: event.data}, event.size)
                if event.size >= COUNTED_FROM_BYTES:
                    loop = self._service.loop
                    self._service.garbage.add(event.size, loop.time(), loop)
            elif isinstance(event, Ended):
                ended = event
            # A pong says no more than any other byte: the peer lives.
            elif event.is_control and self._is_over_rate():
                ended = machine.fail(POLICY_VIOLATION, "Too many pings and pongs.")
            if taken % STRIDE == 0:
                now = time.monotonic()
                until = until or now + self._stretch_seconds
                self.rests = now >= until
            waits = self._must_wait(stage)
        if pongs := machine.data_to_send():
            self._heartbeat.answer(pongs)
            waits = self._must_wait(stage)
        if self.is_paused != waits:
            self._turn_round()
        return ended

    def _must_wait(self, stage: Stage) -> bool:
        if self.rests:
            return True
        if stage is _OPEN:
            return self._heartbeat.waits or self._mailbox.client_is_full
        return stage is not _CLOSED

    def _turn_round(self) -> None:
        self.is_paused = not self.is_paused
        if self.is_paused:
            self._outlet.pause_reading()
        else:
            # Its silence was ours.
            self._heartbeat.heard = True
            if self._follows:
                self._look_again()
            self._outlet.resume_reading()

    # An application that calls `receive` without ever waiting.

    def is_greedy(self) -> bool:
        """True if the loop has not turned for a stretch, as far as is known; it does then."""
        now = time.monotonic()
        if now - self._turned < self._stretch_seconds:
            return False
        self._turned = now
        return True

    def turned(self) -> None:
        """The loop has turned."""
        self._turned = time.monotonic()

    # Pings and pongs.

    def _is_over_rate(self) -> bool:
        rate = self._limits.max_control_rate
        if rate is None:
            return False
        now = time.monotonic()
        if now - self._control_since >= RATE_SECONDS:
            self._controls, self._control_since = 0, now
        self._controls += 1
        if self._controls <= rate * RATE_SECONDS:
            return False
        cut_off("control_frames", self._client, f"more than {rate} pings and pongs a second")
        return True

    # A frame that has begun.

    def _follow(self, *, is_new: bool) -> None:
        """Look after the frame at the input's end; `is_new` if others were complete before it."""
        if not self._heartbeat.machine.is_inside_frame:
            if self._follows:
                self._follows = False
                self._heartbeat.deadlines.clear("frame")
        elif is_new or not self._follows:
            self._follows = True
            self._look_again()

    def is_too_slow(self) -> bool:
        """True if the frame must not go on as it has; while we do not read it has all its time."""
        seconds = self._timeouts.frame_timeout or 0.0
        is_slow = self.received_bytes < max(seconds * self._limits.min_frame_rate, 1)
        if is_slow and not self.is_paused:
            got = f"{self.received_bytes} bytes of a WebSocket frame in {seconds} s"
            cut_off("slow_frame", self._client, got)
            return True
        self._look_again()
        return False

    def _look_again(self) -> None:
        self.received_bytes = 0
        self._heartbeat.deadlines.set("frame", self._timeouts.frame_timeout)
