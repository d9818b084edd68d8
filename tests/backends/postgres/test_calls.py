"""The queue of calls: order, batches, and what becomes of a batch whose answer was lost."""

import pytest

from channels.backends.postgres.calls import BATCH, BATCH_BYTES, Call, CallQueue, target_hash
from channels.exceptions import ChannelLayerUnavailable


def kinds(calls: list[Call]) -> list[str]:
    return [call.kind for call in calls]


async def test_calls_go_in_order_in_batches_of_a_bounded_size() -> None:
    calls = CallQueue(10_000)
    for number in range(BATCH + 10):
        calls.put(Call("g", number=number))
    assert [call.number for call in calls.gather()] == list(range(BATCH))
    calls.settle([(0, 0)] * BATCH, ())
    assert len(calls.gather()) == 10
    calls.settle([(0, 0)] * 10, ())
    for _ in range(3):
        calls.put(Call("g", payload=bytes(BATCH_BYTES)))
    assert len(calls.gather()) == 1, "a large one goes alone"


async def test_more_than_may_wait_is_refused() -> None:
    calls = CallQueue(2)
    for _ in range(2):
        calls.put(Call("g"))
    with pytest.raises(ChannelLayerUnavailable, match="max_pending=2"):
        calls.put(Call("g"))
    assert calls.counters["refused_pending"] == 1


async def test_a_batch_in_the_journal_is_settled_and_not_sent_again() -> None:
    calls = CallQueue(10)
    answers = [calls.put(Call(kind)) for kind in "gq"]
    calls.gather()
    later = calls.put(Call("j"))
    calls.recover(calls.number, [(0, 0), (-1, 0)])
    assert [answer.result().first for answer in answers] == [0, -1]
    assert kinds(calls.gather()) == ["j"]
    assert not later.done()


async def test_a_batch_that_is_not_in_the_journal_is_sent_before_what_came_later() -> None:
    calls = CallQueue(10)
    for kind in "gq":
        calls.put(Call(kind))
    calls.gather()
    calls.put(Call("j"))
    calls.recover(calls.number - 1, [(-1, 0)])
    assert kinds(calls.gather()) == ["g", "q", "j"]


async def test_leases_whose_answer_was_lost_are_asked_for_again() -> None:
    calls = CallQueue(10)
    push, lease, _ = [calls.put(call) for call in (Call("q"), Call("l", extra=7), Call("j"))]
    calls.gather()
    calls.put(Call("k"))
    calls.recover(calls.number, [(0, 0), (0, 0), (5, 0)])
    assert push.done()
    assert kinds(calls.gather()) == ["l", "k"]
    mine = [(7, 1, 1, b"a"), (7, 2, 5, b"b")]
    calls.settle([(0, 0), (1, 0)], [*mine, (10, 3, 1, b"another's")])
    assert (await lease).leased == mine


async def test_a_journal_of_an_earlier_life_settles_nothing() -> None:
    calls = CallQueue(10)
    calls.put(Call("g"))
    calls.gather()
    earlier = calls.number
    calls.settle([(0, 0)], ())
    calls.prepare()
    calls.put(Call("q"))
    calls.gather()
    calls.recover(earlier, [(0, 0)])
    assert kinds(calls.gather()) == ["q"]


async def test_who_has_gone_is_left_out() -> None:
    calls = CallQueue(10)
    calls.put(Call("g")).cancel()
    calls.put(Call("q"))
    assert kinds(calls.gather()) == ["q"]


def test_targets_of_one_name_differ_by_kind_and_prefix() -> None:
    found = {target_hash(prefix, kind, "x") for prefix in "ab" for kind in "gnq"}
    assert len(found) == 6
    assert all(-(2**63) <= number < 2**63 for number in found)
