"""One timer on the layers' thread, whose time is told by any clock."""

import gc
import threading
import weakref

from channels.kit.clock import ManualClock, SystemClock
from channels.layers.process.alarm import Alarm
from channels.layers.process.owner import loop_thread


class Bell:
    """Rings once, or as often as it is told to."""

    def __init__(self, again: list[float] | None = None) -> None:
        self.rung = threading.Semaphore(0)
        self.threads: list[str] = []
        self.again = again or []

    def ring(self) -> float | None:
        self.threads.append(threading.current_thread().name)
        self.rung.release()
        return SystemClock.monotonic() + self.again.pop() if self.again else None


def settle() -> None:
    """Until all that was posted to the thread has been done."""
    done = threading.Event()
    loop_thread.loop().call_soon_threadsafe(done.set)
    assert done.wait(10)


def test_it_rings_at_its_time_on_the_layers_thread() -> None:
    bell = Bell()
    alarm = Alarm(SystemClock(), bell.ring)
    alarm.set(SystemClock.monotonic() + 0.01)
    assert bell.rung.acquire(timeout=10)
    assert bell.threads == ["channels-layers"]


def test_an_earlier_time_takes_the_place_of_a_later_one() -> None:
    bell, clock = Bell(), ManualClock()
    alarm = Alarm(clock, bell.ring)
    alarm.set(clock.monotonic() + 3000)
    alarm.set(clock.monotonic() + 3500)
    alarm.set(None)
    settle()
    assert not bell.threads
    alarm.set(clock.monotonic())
    assert bell.rung.acquire(timeout=10)


def test_it_rings_again_when_ringing_says_so() -> None:
    bell = Bell([0.01, 0.0])
    alarm = Alarm(SystemClock(), bell.ring)
    alarm.set(SystemClock.monotonic())
    for _ in range(3):
        assert bell.rung.acquire(timeout=10)


def test_cancelled_it_does_not_ring_until_set_again() -> None:
    bell, clock = Bell(), ManualClock()
    alarm = Alarm(clock, bell.ring)
    alarm.set(clock.monotonic() + 3000)
    settle()
    alarm.cancel()
    clock.advance(4000)
    settle()
    assert not bell.threads
    alarm.set(clock.monotonic())
    assert bell.rung.acquire(timeout=10)


def test_a_timer_keeps_nothing_alive() -> None:
    bell, clock = Bell(), ManualClock()
    alarm = Alarm(clock, bell.ring)
    alarm.set(clock.monotonic() + 3000)
    settle()
    gone = weakref.ref(bell)
    del bell
    gc.collect()
    assert gone() is None
    alarm.cancel()
