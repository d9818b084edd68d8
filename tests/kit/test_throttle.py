from __future__ import annotations

from channels.kit.throttle import Throttle, and_more


def test_one_of_each_key_is_admitted_in_its_time() -> None:
    now = 0.0
    throttle = Throttle(5.0, clock=lambda: now)
    assert [throttle.admit("a") for _ in range(3)] == [0, None, None]
    assert throttle.admit("b") == 0
    now = 4.9
    assert throttle.admit("a") is None
    now = 5.0
    assert throttle.admit("a") == 3
    now = 10.0
    assert throttle.admit("a") == 0


def test_a_line_says_how_many_were_held_back() -> None:
    assert and_more(0) == ""
    assert and_more(7) == " (7 more since the last such line)"
