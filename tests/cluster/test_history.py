"""The judge of the cluster tests sees what it must see."""

from tests.cluster.history import Mark, Outcome, PublisherLog, judge_group, judge_queue


def sent(*outcomes: Outcome, name: str = "p") -> PublisherLog:
    log = PublisherLog(name)
    for outcome in outcomes:
        log.end(log.begin(), outcome)
    return log


def marks(*numbers: int, name: str = "p") -> list[Mark]:
    return [(name, number) for number in numbers]


THREE = sent(Outcome.OK, Outcome.OK, Outcome.OK)


def test_a_group_read_whole_and_in_order_is_clean() -> None:
    assert judge_group([THREE], {"a": marks(0, 1, 2), "b": marks(0, 1, 2)}).is_clean


def test_each_reader_of_a_group_must_have_each_message() -> None:
    verdict = judge_group([THREE], {"a": marks(0, 1, 2), "b": marks(0, 2)})
    assert verdict.lost == [("b", ("p", 1))]
    assert not verdict.reordered


def test_repeats_and_disorder_are_told_apart() -> None:
    verdict = judge_group([THREE], {"a": marks(0, 1, 1, 2), "b": marks(0, 2, 1)})
    assert verdict.doubled == [("a", ("p", 1))]
    assert verdict.reordered == [("b", ("p", 2), ("p", 1))]


def test_publishers_have_their_own_order() -> None:
    other = sent(Outcome.OK, name="q")
    assert judge_group([THREE, other], {"a": [*marks(0), ("q", 0), *marks(1, 2)]}).is_clean


def test_a_queue_is_read_once_by_all_readers_together() -> None:
    assert judge_queue([THREE], {"a": marks(0, 2), "b": marks(1)}).is_clean
    assert judge_queue([THREE], {"a": marks(0, 1), "b": marks(1, 2)}).doubled
    assert judge_queue([THREE], {"a": marks(0), "b": marks(1)}).lost == [("", ("p", 2))]


def test_what_may_have_been_sent_may_be_read_and_what_was_refused_may_not() -> None:
    log = sent(Outcome.OK, Outcome.UNKNOWN, Outcome.REFUSED)
    unfinished = log.begin()
    assert judge_queue([log], {"a": marks(0)}).is_clean
    assert judge_queue([log], {"a": [*marks(0, 1), unfinished]}).is_clean
    assert judge_queue([log], {"a": marks(0, 2)}).strange == [("", ("p", 2))]
    assert judge_queue([log], {"a": [*marks(0), ("unheard", 0)]}).strange
