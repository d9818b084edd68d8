"""Families as plain data, and their sum."""

from __future__ import annotations

import json

from channels.kit.families import Family, summed


def test_they_cross_a_file() -> None:
    family = Family("x", "histogram", "X.", ("a", "b"), {("1", "2"): [1, 0, 0.5]})
    assert Family.from_data(json.loads(json.dumps(family.as_data()))) == family


def test_samples_are_added_by_label_and_info_stays_one() -> None:
    one = [
        Family("c", "counter", "C.", ("l",), {("a",): [1], ("b",): [2]}),
        Family("i", "info", "I.", samples={(): [1]}),
    ]
    two = [
        Family("i", "info", "I.", samples={(): [1]}),
        Family("c", "counter", "C.", ("l",), {("b",): [3]}),
        Family("h", "histogram", "H.", samples={(): [1, 2, 3]}),
    ]
    total = {family.name: family.samples for family in summed([*one, *two])}
    assert total == {
        "c": {("a",): [1], ("b",): [5]},
        "i": {(): [1]},
        "h": {(): [1, 2, 3]},
    }
    assert one[0].samples["b",] == [2]


def test_samples_of_another_release_with_other_buckets_replace() -> None:
    one = Family("h", "histogram", "H.", samples={(): [1, 2, 3]})
    two = Family("h", "histogram", "H.", samples={(): [1, 2]})
    assert summed([one, two])[0].samples == {(): [1, 2]}
