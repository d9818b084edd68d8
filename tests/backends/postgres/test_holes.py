"""Ids of the log that a reader passed without seeing."""

import random

from channels.backends.postgres.holes import GRACE_SECONDS, Holes


def test_what_is_missing_between_ids() -> None:
    assert Holes().missing(4, [5, 6]) == []
    assert Holes().missing(4, [6, 7, 10]) == [range(5, 6), range(8, 10)]
    assert Holes().missing(4, []) == []


def test_a_hole_that_is_filled_is_forgotten() -> None:
    holes = Holes()
    holes.note([range(5, 8)], 0.0, 100)
    holes.fill([6, 99])
    assert holes.ids() == [5, 7]


def test_a_hole_stays_until_all_transactions_of_its_time_have_ended() -> None:
    holes = Holes()
    holes.note([range(5, 6)], 0.0, 100)
    holes.settle(1000.0, 99)
    assert holes.ids() == [5]
    holes.settle(1000.0, 100)
    assert len(holes) == 0


def test_a_hole_stays_for_a_while_in_any_case() -> None:
    holes = Holes()
    holes.note([range(5, 6)], 10.0, 100)
    holes.settle(10.0 + GRACE_SECONDS / 2, 200)
    assert len(holes) == 1
    holes.settle(10.0 + GRACE_SECONDS, 200)
    assert len(holes) == 0


def test_more_holes_than_are_remembered_are_told_and_the_newest_kept() -> None:
    holes = Holes(most=10)
    assert holes.note([range(10)], 0.0, 1)
    assert not holes.note([range(20, 22)], 0.0, 1)
    assert holes.ids() == [2, 3, 4, 5, 6, 7, 8, 9, 20, 21]
    assert not holes.note([range(100, 10**12)], 0.0, 1)
    assert holes.ids() == list(range(10**12 - 10, 10**12))


def test_a_reader_sees_every_commit_once_whatever_the_order() -> None:
    """Against a model: ids are taken in order and committed in any, some never."""
    chance = random.Random(5)
    for _ in range(50):
        ids = list(range(1, 200))
        lost = set(chance.sample(ids, 20))
        order = sorted(set(ids) - lost, key=lambda number: number + chance.randrange(30))
        holes, cursor, seen, committed = Holes(), 0, [], set()
        while order:
            for _ in range(chance.randrange(1, 20)):
                if order:
                    committed.add(order.pop(0))
            page = sorted(number for number in committed if number > cursor)
            holes.note(holes.missing(cursor, page), 0.0, 1)
            late = sorted(set(holes.ids()) & committed)
            holes.fill(late)
            seen += page + late
            cursor = max([cursor, *page])
        assert sorted(seen) == sorted(committed)
        assert len(seen) == len(set(seen))
