"""Times in buckets, with a bounded number of label sets."""

from __future__ import annotations

from channels.kit.histograms import BOUNDS, MOST_LABEL_SETS, OTHER, Histograms, Measuring, add_time


def test_a_time_is_counted_in_the_first_bucket_that_holds_it() -> None:
    times = Histograms("x", "X.", ())
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.5, BOUNDS[-1] * 2):
        add_time(times.of(), seconds)
    values = times.family().samples[()]
    assert values[0] == 2
    assert values[1] == 1
    assert values[len(BOUNDS)] == 1
    assert values[-1] == BOUNDS[0] * 2.5 + BOUNDS[-1] * 2


def test_label_sets_are_bounded() -> None:
    times = Histograms("x", "X.", ("name", "kind"))
    for number in range(MOST_LABEL_SETS * 2):
        add_time(times.of(str(number), "a"), 1)
    samples = times.family().samples
    assert len(samples) == MOST_LABEL_SETS + 1
    assert sum(samples[OTHER, OTHER][:-1]) == MOST_LABEL_SETS


def test_followers_hear_once_that_measuring_has_begun() -> None:
    measuring, heard = Measuring(), []
    measuring.follow(lambda: heard.append("early"))
    measuring.begin()
    measuring.begin()
    measuring.follow(lambda: heard.append("late"))
    assert heard == ["early", "late"]
