"""How soon silence is noticed; the clock is turned by hand."""

from __future__ import annotations

import pytest

from channels.kit.limits import Limits, Timeouts
from channels.server.deadlines import Deadlines
from channels.server.websocket_heartbeat import Heartbeat
from channels.wire.websocket import WebSocket
from tests.server.test_deadlines import HandTurnedLoop


class Wire:
    """An outlet that counts the pings."""

    is_full = is_closing = False
    taken_bytes = unread_bytes = 0
    cut_reason = None

    def __init__(self) -> None:
        self.pings = 0

    def write(self, data: bytes) -> None:
        self.pings += 1

    async def drain(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


@pytest.mark.parametrize("silent_from", [0.0, 19.5, 20.5, 39.5, 40.5, 61.0, 999.0])
@pytest.mark.parametrize("timeout", [5.0, 20.0, 30.0])
def test_silence_is_noticed_within_the_interval_and_the_timeout(
    silent_from: float, timeout: float
) -> None:
    def on_due(name: str) -> None:
        if name == "ping":
            heartbeat.ping()
        elif not heartbeat.heard:
            noticed.append(loop.now - began)

    noticed: list[float] = []
    loop, wire = HandTurnedLoop(), Wire()
    deadlines = Deadlines(loop, on_due)
    timeouts = Timeouts(ping_interval=20.0, ping_timeout=timeout)
    heartbeat = Heartbeat(WebSocket(Limits()), wire, deadlines, timeouts)
    began = loop.now
    heartbeat.start()
    answered = 0
    while not noticed and loop.now < began + silent_from + 100:
        loop.turn(0.25)
        if wire.pings > answered and loop.now - began < silent_from:
            # Half a second later than asked.
            heartbeat.heard, answered = True, wire.pings
    assert silent_from < noticed[0] <= silent_from + 20 + timeout


class SlowWire(Wire):
    """An outlet whose peer's side takes bytes when it is told to."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.unread_bytes += len(data)

    def take(self, count: int) -> None:
        count = min(count, self.unread_bytes)
        self.taken_bytes += count
        self.unread_bytes -= count


def heartbeat_of(line: SlowWire) -> Heartbeat:
    deadlines = Deadlines(HandTurnedLoop(), lambda name: None)
    return Heartbeat(
        WebSocket(Limits()), line, deadlines, Timeouts(ping_interval=1, ping_timeout=1)
    )


def test_a_ping_that_the_system_took_and_one_just_written_are_no_sign_of_life() -> None:
    line = SlowWire()
    heartbeat = heartbeat_of(line)
    heartbeat.ping()
    line.take(1000)
    assert not heartbeat.is_read
    # The next one leaves in the moment in which the pong to the first is due.
    heartbeat.ping()
    assert not heartbeat.is_read


def test_a_ping_that_waits_behind_what_a_slow_reader_takes_is_one() -> None:
    line = SlowWire()
    line.write(bytes(1000))
    heartbeat = heartbeat_of(line)
    heartbeat.ping()
    assert not heartbeat.is_read
    line.take(100)
    assert heartbeat.is_read
    line.take(1000)
    assert not heartbeat.is_read
