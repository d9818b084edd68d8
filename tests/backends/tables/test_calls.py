"""The line of calls: order, batches, and what becomes of a batch whose answer was lost."""

import pytest

from channels.backends.tables.calls import BATCH, BATCH_BYTES, Call, CallLine, target_hash
from channels.exceptions import ChannelLayerUnavailable


def kinds(calls: list[Call]) -> list[str]:
    return [call.kind for call in calls]


async def test_calls_go_in_order_in_batches_of_a_bounded_size() -> None:
    line = CallLine(10_000)
    for number in range(BATCH + 10):
        line.put(Call("g", number=number))
    assert [call.number for call in line.gather()] == list(range(BATCH))
    line.settle({})
    assert len(line.gather()) == 10
    line.settle({})
    for _ in range(3):
        line.put(Call("g", payload=bytes(BATCH_BYTES)))
    assert len(line.gather()) == 1, "a large one goes alone"


async def test_more_than_may_wait_is_refused() -> None:
    line = CallLine(2)
    for _ in range(2):
        line.put(Call("g"))
    with pytest.raises(ChannelLayerUnavailable, match="max_pending=2"):
        line.put(Call("g"))
    assert line.counters["refused_pending"] == 1


async def test_a_batch_in_the_journal_is_settled_and_not_sent_again() -> None:
    line = CallLine(10)
    answers = [line.put(Call(kind)) for kind in "gq"]
    line.gather()
    later = line.put(Call("j"))
    line.recover(line.number, {0: (0, 0, []), 1: (-1, 0, [])})
    assert [answer.result()[0] for answer in answers] == [0, -1]
    assert kinds(line.gather()) == ["j"]
    assert not later.done()


async def test_a_batch_that_is_not_in_the_journal_is_sent_before_what_came_later() -> None:
    line = CallLine(10)
    for kind in "gq":
        line.put(Call(kind))
    line.gather()
    line.put(Call("j"))
    line.recover(line.number - 1, {0: (-1, 0, [])})
    assert kinds(line.gather()) == ["g", "q", "j"]


async def test_a_journal_of_an_earlier_life_settles_nothing() -> None:
    line = CallLine(10)
    line.put(Call("g"))
    line.gather()
    earlier = line.number
    line.settle({})
    line.prepare()
    line.put(Call("q"))
    line.gather()
    line.recover(earlier, {0: (0, 0, [])})
    assert kinds(line.gather()) == ["q"]


async def test_who_has_gone_is_left_out() -> None:
    line = CallLine(10)
    line.put(Call("g")).cancel()
    line.put(Call("q"))
    assert kinds(line.gather()) == ["q"]


async def test_a_batch_that_can_never_be_carried_out_is_told() -> None:
    line = CallLine(10)
    answer = line.put(Call("g"))
    line.gather()
    line.reject(ValueError("no"))
    with pytest.raises(ChannelLayerUnavailable, match="no"):
        await answer
    assert len(line) == 0


def test_targets_of_one_name_differ_by_kind_and_prefix() -> None:
    found = {target_hash(prefix, kind, "x") for prefix in "ab" for kind in "gnq"}
    assert len(found) == 6
    assert all(-(2**63) <= number < 2**63 for number in found)
