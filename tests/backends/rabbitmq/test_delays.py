"""Where a delayed message waits."""

from __future__ import annotations

import pytest

from channels.backends.rabbitmq.delays import HAND_SECONDS, WaitingQueues, level_of
from channels.backends.rabbitmq.names import LEVELS, Names
from channels.backends.rabbitmq.options import RabbitMQOptions

NAMES = Names("asgi", RabbitMQOptions(), lambda: 60.0, lambda: 60.0)


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0.0, -2), (0.3, -1), (1.5, 0), (4.5, 1), (15.9, 1), (604_800.0, 9), (1e9, 10)],
)
def test_no_queue_holds_a_message_for_too_long(seconds: float, level: int) -> None:
    assert level_of(seconds) == level
    assert level == LEVELS[0] or 4.0**level <= seconds


@pytest.mark.parametrize("seconds", [0.2, 1.1, 7.7, 3_599.0, 86_400.5, 5_000_000.0])
def test_it_comes_to_its_end_in_few_steps(seconds: float) -> None:
    waiting, steps = WaitingQueues(NAMES), 0
    while seconds > HAND_SECONDS:
        assert waiting.place(seconds) == NAMES.later(level_of(seconds))
        seconds -= 4.0 ** level_of(seconds)
        steps += 1
    assert seconds >= 0, "never too late"
    assert waiting.place(seconds) == NAMES.due
    assert steps <= 3 * len(LEVELS)


def test_what_finds_no_room_is_tried_less_often_the_longer_it_waits() -> None:
    waiting = WaitingQueues(NAMES)
    pauses = [waiting.pause(overdue) for overdue in (0.01, 0.8, 60.0)]
    assert pauses == [NAMES.later(-2), NAMES.later(-1), NAMES.later(0)]
