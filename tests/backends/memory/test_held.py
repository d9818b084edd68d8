"""Delays and leases in the memory engine, with a clock turned by hand."""

import pytest

from channels.backends.memory.engine import MemoryEngine
from channels.backends.memory.queue import Demand
from channels.exceptions import ChannelFull
from channels.kit.clock import ManualClock
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, Kind


class Reader:
    """Takes leases, and notes them."""

    def __init__(self) -> None:
        self.leased: list[Leased] = []

    def take(self, leased: Leased) -> None:
        self.leased.append(leased)

    @property
    def taken(self) -> list[tuple[int, int]]:
        """(number, attempts) of each."""
        return [(each.data.seq, each.attempts) for each in self.leased]  # type: ignore[union-attr]


class Bench:
    """An engine with its holder."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = MemoryEngine(self.clock)
        self.due: list[float] = []
        self.engine.on_due = self.due.append

    def push(self, *numbers: int, expiry: float = 0) -> None:
        for number in numbers:
            self.engine.push("jobs", self.envelope(number, expiry), 1000)

    def envelope(self, number: int, expiry: float = 0) -> Envelope:
        deadline = int((self.clock.time() + expiry) * 1000) if expiry else 0
        return Envelope(
            Kind.CHANNEL, "jobs", b"payload", sender=b"12345678", seq=number, deadline=deadline
        )

    def delay(self, number: int, seconds: float, bound: int = 100, expiry: float = 0) -> None:
        envelope = self.envelope(number, expiry)
        self.engine.push_later("jobs", envelope, self.clock.time() + seconds, bound)

    def lease(self, reader: Reader, count: int, seconds: float = 10) -> None:
        self.engine.demand(reader, "jobs", Demand(count, seconds, reader.take))

    def pass_time(self, seconds: float) -> float | None:
        self.clock.advance(seconds)
        return self.engine.tick()

    def pull(self, count: int) -> list[int]:
        reader = Reader()
        self.engine.demand(reader, "jobs", Demand(count, 10, reader.take))
        self.engine.demand(reader, "jobs", Demand(0, 10, reader.take))
        for leased in reader.leased:
            self.engine.acknowledge(leased.token)
        return [number for number, _ in reader.taken]


def test_a_delayed_one_comes_at_its_time_and_not_before() -> None:
    bench = Bench()
    bench.delay(1, 5)
    bench.push(2)
    assert bench.due == [bench.clock.monotonic() + 5]
    assert bench.pass_time(4.9) == pytest.approx(bench.clock.monotonic() + 0.1)
    assert bench.pull(2) == [2]
    bench.pass_time(0.11)
    assert bench.pull(2) == [1]


def test_the_timer_is_told_only_when_the_next_time_becomes_earlier() -> None:
    bench = Bench()
    start = bench.clock.monotonic()
    for seconds in (5, 7, 3):
        bench.delay(1, seconds)
    assert bench.due == [start + 5, start + 3]


def test_delayed_ones_of_one_time_keep_their_order() -> None:
    bench = Bench()
    for number in range(300):
        bench.delay(number, 5, bound=1000)
    bench.pass_time(5)
    assert bench.pull(300) == list(range(300))


def test_the_bound_counts_what_is_pending() -> None:
    bench = Bench()
    bench.delay(1, 5, bound=1)
    with pytest.raises(ChannelFull, match="max_delayed"):
        bench.delay(2, 5, bound=1)
    bench.pass_time(5)
    bench.delay(2, 5, bound=1)
    assert bench.engine.statistics()["delayed"] == 1


def test_an_expired_one_is_dropped_when_it_is_due() -> None:
    bench = Bench()
    bench.delay(1, 5, expiry=4)
    bench.pass_time(6)
    assert bench.pull(1) == []
    assert bench.engine.expired == 1


def test_leased_ones_are_out_of_reach_until_their_time() -> None:
    bench, one, two = Bench(), Reader(), Reader()
    bench.push(1, 2)
    bench.lease(one, 2)
    assert one.taken == [(1, 1), (2, 1)]
    bench.lease(two, 2)
    bench.pass_time(9.9)
    assert two.taken == []
    assert bench.engine.acknowledge(one.leased[0].token)
    bench.pass_time(0.2)
    assert two.taken == [(2, 2)]
    assert not bench.engine.acknowledge(one.leased[1].token), "that lease is over"
    assert bench.engine.statistics()["leases_run_out"] == 1


def test_released_ones_go_to_the_head_of_their_queue() -> None:
    bench, reader = Bench(), Reader()
    bench.push(1, 2)
    bench.lease(reader, 1)
    assert bench.engine.release(reader.leased[0].token, 0, counted=True)
    bench.lease(reader, 2)
    assert reader.taken == [(1, 1), (1, 2), (2, 1)]
    assert bench.engine.release(reader.leased[1].token, 0, counted=False)
    bench.lease(reader, 1)
    assert reader.taken[-1] == (1, 2)
    assert not bench.engine.release(reader.leased[1].token, 0, counted=True)


def test_a_lease_that_is_released_for_later_is_void() -> None:
    bench, reader = Bench(), Reader()
    bench.push(1)
    bench.lease(reader, 1)
    token = reader.leased[0].token
    assert bench.engine.release(token, 0.5, counted=True)
    assert not bench.engine.acknowledge(token)
    assert not bench.engine.extend(token, 5)
    bench.lease(reader, 1)
    bench.pass_time(0.4)
    assert reader.taken == [(1, 1)]
    bench.pass_time(0.1)
    assert reader.taken == [(1, 1), (1, 2)]


def test_an_extended_lease() -> None:
    bench, one, two = Bench(), Reader(), Reader()
    bench.push(1)
    bench.lease(one, 1)
    bench.lease(two, 1)
    bench.pass_time(9)
    assert bench.engine.extend(one.leased[0].token, 10)
    bench.pass_time(9)
    assert two.taken == []
    bench.pass_time(1)
    assert two.taken == [(1, 2)]


def test_what_a_dead_reader_had_comes_back_at_once_and_in_order() -> None:
    bench, one, two = Bench(), Reader(), Reader()
    bench.push(1, 2, 3)
    bench.lease(one, 2)
    bench.lease(two, 0)
    bench.engine.forget_reader(one)
    bench.lease(two, 3)
    assert two.taken == [(1, 2), (2, 2), (3, 1)]


def test_a_reader_without_demand_gets_nothing() -> None:
    bench, reader = Bench(), Reader()
    bench.lease(reader, 1)
    bench.lease(reader, 0)
    bench.push(1)
    assert reader.taken == []
    assert bench.pull(1) == [1]


def test_attempts_are_counted_for_each_queue_by_itself() -> None:
    bench, reader = Bench(), Reader()
    for queue in ("jobs", "copy"):
        bench.engine.add("room", queue, bench.clock.time() + 60)
    bench.engine.publish("room", bench.envelope(1), lambda _: 10)
    for _ in range(3):
        bench.lease(reader, 1)
        bench.engine.release(reader.leased[-1].token, 0, counted=True)
    bench.engine.demand(reader, "copy", Demand(1, 10, reader.take))
    assert reader.taken == [(1, 1), (1, 2), (1, 3), (1, 1)]


def test_many_short_leases_leave_nothing_behind() -> None:
    bench, reader = Bench(), Reader()
    for number in range(5000):
        bench.push(number)
        bench.lease(reader, 1)
        bench.engine.acknowledge(reader.leased[-1].token)
    assert len(bench.engine._heap) < 100


def test_flush_forgets_all_that_is_held() -> None:
    bench, reader = Bench(), Reader()
    bench.push(1)
    bench.lease(reader, 1)
    bench.delay(2, 5)
    bench.engine.flush()
    assert bench.pass_time(100) is None
    assert bench.pull(2) == []
    assert not bench.engine.acknowledge(reader.leased[0].token)
