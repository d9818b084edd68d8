"""The engine as the hub of the local layer uses it: several readers, fairness, put-back."""

import pytest

from channels.backends.memory.engine import MemoryEngine
from channels.backends.memory.queue import Demand, envelope_octets
from channels.exceptions import ChannelFull
from channels.kit.clock import ManualClock
from channels.layers.contract import Leased
from channels.layers.envelope import Envelope, Kind


class Taker:
    """A reader that notes what it gets."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.got: list[int] = []
        self.engine = engine

    def demand(self, queue: str, count: int) -> None:
        self.engine.demand(self, queue, Demand(count, 10, self.take))

    def take(self, leased: Leased) -> None:
        assert isinstance(leased.data, Envelope)
        self.got.append(leased.data.seq)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def engine(clock: ManualClock) -> MemoryEngine:
    return MemoryEngine(clock, lambda: 1.0)


def envelope(seq: int, deadline: float = 0) -> Envelope:
    return Envelope(Kind.CHANNEL, "q", b"", sender=b"12345678", seq=seq, deadline=int(deadline))


def push(engine: MemoryEngine, *numbers: int, queue: str = "q") -> None:
    for number in numbers:
        engine.push(queue, envelope(number), 100)


def test_readers_are_served_in_turn_as_far_as_they_asked(engine: MemoryEngine) -> None:
    one, two = Taker(engine), Taker(engine)
    one.demand("q", 3)
    two.demand("q", 1)
    push(engine, 1, 2, 3, 4, 5)
    assert (one.got, two.got) == ([1, 3, 4], [2])
    two.demand("q", 1)
    assert two.got == [2, 5]
    assert engine.queues == {}


def test_the_latest_demand_holds(engine: MemoryEngine) -> None:
    taker = Taker(engine)
    taker.demand("q", 5)
    taker.demand("q", 0)
    push(engine, 1)
    assert taker.got == []
    taker.demand("q", 1)
    assert taker.got == [1]


def test_what_is_put_back_comes_first_and_counts_against_nobody(engine: MemoryEngine) -> None:
    push(engine, 3)
    engine.put_back("q", [envelope(1), envelope(2)])
    with pytest.raises(ChannelFull):
        engine.push("q", envelope(4), 3)
    taker = Taker(engine)
    taker.demand("q", 9)
    assert taker.got == [1, 2, 3]


def test_a_reader_that_puts_back_at_once_does_not_spin(engine: MemoryEngine) -> None:
    class Refuser(Taker):
        def take(self, leased: Leased) -> None:
            super().take(leased)
            engine.release(leased.token, 0.0, counted=False)

    refuser = Refuser(engine)
    push(engine, 1)
    refuser.demand("q", 2)
    assert refuser.got == [1, 1]
    taker = Taker(engine)
    taker.demand("q", 1)
    assert taker.got == [1]


def test_a_reader_that_is_gone_gets_nothing(engine: MemoryEngine) -> None:
    gone = Taker(engine)
    gone.demand("q", 1)
    gone.demand("r", 1)
    engine.forget_reader(gone)
    assert engine.queues == {}
    push(engine, 1)
    assert gone.got == []


def test_expired_envelopes_are_passed_over_and_counted(
    engine: MemoryEngine, clock: ManualClock
) -> None:
    engine.push("q", envelope(1, (clock.time() + 5) * 1000), 1)
    with pytest.raises(ChannelFull):
        engine.push("q", envelope(2), 1)
    clock.advance(6)
    engine.push("q", envelope(3), 1)
    taker = Taker(engine)
    taker.demand("q", 1)
    assert taker.got == [3]
    assert engine.expired == 1


def test_groups_of_queues(engine: MemoryEngine, clock: ManualClock) -> None:
    for queue in ("a", "b", "c"):
        engine.add("g", queue, clock.time() + 10)
    engine.add("g", "c", clock.time() + 20)
    engine.push("a", envelope(1), 1)
    assert engine.publish("g", envelope(2), lambda _: 1) == (1, 3)
    clock.advance(15)
    assert engine.publish("g", envelope(3), lambda _: 9) == (0, 1)
    engine.discard("g", "c")
    engine.discard("g", "c")
    assert engine.publish("g", envelope(4), lambda _: 9) == (0, 0)
    assert engine.groups == {}


def test_a_queue_that_expired_unread_leaves_its_groups(
    engine: MemoryEngine, clock: ManualClock
) -> None:
    engine.add("g", "q", clock.time() + 1000)
    engine.sweep()
    engine.push("q", envelope(1, (clock.time() + 5) * 1000), 9)
    clock.advance(6)
    engine.sweep()
    assert engine.queues == {}
    assert engine.groups == {}


def test_flush_leaves_readers_waiting(engine: MemoryEngine) -> None:
    taker = Taker(engine)
    push(engine, 1)
    taker.demand("r", 1)
    engine.flush()
    assert list(engine.queues) == ["r"]
    push(engine, 2, queue="r")
    assert taker.got == [2]


def test_queues_that_nobody_reads_do_not_pile_up(engine: MemoryEngine, clock: ManualClock) -> None:
    for number in range(1000):
        engine.push(f"q{number}", envelope(number, (clock.time() + 5) * 1000), 9)
        clock.advance(1)
    assert len(engine.queues) < 110
    assert engine.octets == sum(
        envelope_octets(each) for queue in engine.queues.values() for each in queue.envelopes
    )


def test_memberships_are_bounded_and_one_that_ends_makes_room(clock: ManualClock) -> None:
    engine = MemoryEngine(clock, max_memberships=2)
    end = clock.time() + 10
    engine.add("g", "a", end)
    engine.add("g", "b", end)
    engine.add("g", "a", end)
    with pytest.raises(ChannelFull):
        engine.add("other", "a", end)
    engine.discard("g", "unknown")
    engine.discard("g", "a")
    engine.add("other", "a", end)
    clock.advance(11)
    engine.sweep()
    engine.add("third", "a", end + 20)
    engine.add("third", "b", end + 20)
    with pytest.raises(ChannelFull):
        engine.add("third", "c", end + 20)


def test_bounds_are_met_and_not_passed(clock: ManualClock) -> None:
    room = 2 * envelope_octets(envelope(1))
    engine = MemoryEngine(clock, max_octets=room, max_queues=1)
    push(engine, 1, 2)
    assert engine.octets == room
    with pytest.raises(ChannelFull, match="no room for"):
        push(engine, 3)
    engine.discard_unread("q")
    assert engine.octets == 0
    push(engine, 1)
    with pytest.raises(ChannelFull, match="1 queues already"):
        push(engine, 2, queue="another")


def test_flush_makes_room(clock: ManualClock) -> None:
    engine = MemoryEngine(clock, max_memberships=1)
    for _ in range(2):
        engine.add("g", "q", clock.time() + 10)
        engine.push_later("q", envelope(1), clock.time() + 5, bound=1)
        engine.flush()
    assert engine.octets == 0
    assert engine.statistics()["delayed"] == 0
