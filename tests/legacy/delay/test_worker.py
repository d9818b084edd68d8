"""The worker of delayed messages: takes, keeps, sends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError

from channels import Channel, channel_layers
from channels.delay.models import DelayedMessage
from channels.delay.worker import Worker
from channels.exceptions import ChannelLayerUnavailable, InvalidOption, MessageTooLarge
from channels.legacy.delay.worker import DelayOptions
from channels.test import ChannelTestCase
from tests.legacy.routes import routed


class Rounds(Worker):
    """Ends after some rounds; what happens in a round is told to `before`."""

    def __init__(self, rounds: int, before: Callable[[int], object] = int, **more: Any) -> None:
        self.rounds_left = rounds
        self.before = before
        super().__init__(channel_layers["default"], signal_handlers=False, **more)

    @property
    def termed(self) -> bool:
        self.before(self.rounds_left)
        self.rounds_left -= 1
        return self.rounds_left < 0

    @termed.setter
    def termed(self, value: bool) -> None:
        assert value is False


def ask(channel: Any = "jobs", content: Any = None, delay: Any = 0) -> None:
    message = {"channel": channel, "content": content or {}, "delay": delay}
    Channel("asgi.delay").send(message)


def store(content: str, channel: str = "jobs", delay: float = -1) -> None:
    row = DelayedMessage(channel_name=channel, content=content)
    row.delay = delay
    row.save()


FAST = DelayOptions(sleep=0.01)


@routed()
class TestWorker(ChannelTestCase):
    def work(self, rounds: int, options: DelayOptions = FAST) -> Rounds:
        worker = Rounds(rounds, options=options)
        worker.run()
        return worker

    def sent(self) -> list[Any]:
        found = []
        while (message := self.get_next_message("jobs")) is not None:
            found.append(message.content)
        return found

    def test_a_message_is_sent_when_it_is_due(self) -> None:
        ask(content={"number": 1}, delay=60_000)
        ask(content={"number": 2}, delay=0)
        self.work(3)
        assert self.sent() == [{"number": 2}]
        row = DelayedMessage.objects.get()
        assert json.loads(row.content) == {"number": 1}
        row.delay = -1
        row.save()
        self.work(2)
        assert self.sent() == [{"number": 1}]
        assert not DelayedMessage.objects.exists()

    def test_the_earliest_is_sent_first_and_some_in_one_look(self) -> None:
        for number, delay in enumerate((-1, -3, -2)):
            store(json.dumps({"number": number}), delay=delay * 1000)
        self.work(1, DelayOptions(sleep=0.01, batch=2))
        assert [each["number"] for each in self.sent()] == [1, 2]
        self.work(1, DelayOptions(sleep=0.01, batch=2))
        assert [each["number"] for each in self.sent()] == [0]

    def test_a_message_that_nobody_can_send_is_dropped_and_counted(self) -> None:
        Channel("asgi.delay").send({"channel": "jobs", "delay": 1})
        ask(channel="no name!!")
        ask(channel=7)
        ask(content=[1])
        ask(content={"data": b"bytes"})
        ask(delay="soon")
        ask(delay=True)
        ask(delay=math.inf)
        ask(content={"number": 1})
        with self.assertLogs("django.channels.delay", "ERROR") as logs:
            worker = self.work(10)
        assert worker.malformed == 8
        assert self.sent() == [{"number": 1}]
        (line,) = logs.output
        assert "A delayed message is dropped: it has no content" in line

    def test_a_row_that_nobody_can_send_is_dropped_and_counted(self) -> None:
        for name, content in (("jobs", "[]"), ("jobs", "{"), ("no name!", "{}"), ("jobs", "{}")):
            store(content, name)
        with self.assertLogs("django.channels.delay", "ERROR"):
            worker = self.work(2)
        assert worker.malformed == 3
        assert self.sent() == [{}]
        assert not DelayedMessage.objects.exists()

    def test_a_row_that_is_too_large_is_dropped_and_counted(self) -> None:
        store('{"a": 1}')
        with (
            mock.patch.object(DelayedMessage, "send", side_effect=MessageTooLarge("9 MB")),
            self.assertLogs("django.channels.delay", "ERROR"),
        ):
            assert self.work(1).malformed == 1
        assert not DelayedMessage.objects.exists()

    def test_a_full_table_takes_no_more(self) -> None:
        for number in range(3):
            ask(content={"number": number}, delay=60_000)
        with self.assertLogs("django.channels.delay", "ERROR") as logs:
            self.work(4, DelayOptions(sleep=0.01, max_messages=2))
        assert DelayedMessage.objects.count() == 2
        assert "holds 2 delayed messages (max_messages)" in logs.output[0]
        assert self.get_next_message("asgi.delay", require=True)

    def test_a_message_in_hand_waits_for_the_database(self) -> None:
        ask(content={"number": 1}, delay=60_000)
        save = DelayedMessage.save
        fails = [OperationalError("gone"), OperationalError("gone")]

        def fail_first(row: DelayedMessage, **more: Any) -> None:
            if fails:
                raise fails.pop()
            save(row, **more)

        with (
            mock.patch.object(DelayedMessage, "save", fail_first),
            self.assertLogs("django.channels.delay", "ERROR") as logs,
        ):
            self.work(3)
        assert DelayedMessage.objects.count() == 1
        assert "Delayed messages wait, trying again: gone" in logs.output[0]

    def test_a_message_in_hand_goes_back_when_it_stops(self) -> None:
        ask(content={"number": 1}, delay=60_000)
        with (
            mock.patch.object(DelayedMessage, "save", side_effect=OperationalError("gone")),
            self.assertLogs("django.channels.delay", "ERROR"),
        ):
            self.work(1)
        message = self.get_next_message("asgi.delay", require=True)
        assert message is not None
        assert message["channel"] == "jobs"
        assert message["content"] == {"number": 1}
        assert 0 < message["delay"] <= 60_000

    def test_while_the_layer_is_out_of_reach_a_row_waits(self) -> None:
        store("{}")
        gone = ChannelLayerUnavailable("no broker")
        with (
            mock.patch.object(DelayedMessage, "send", side_effect=gone),
            self.assertLogs("django.channels.delay", "ERROR"),
        ):
            self.work(1)
        row = DelayedMessage.objects.get()
        assert row.delay <= 10
        row.delay = -1
        row.save()
        self.work(1)
        assert self.sent() == [{}]

    def test_it_stops_when_it_is_told(self) -> None:
        worker = Worker(channel_layers["default"], database_sleep_duration=0.01)
        look = worker._look

        def stop_in_a_look() -> None:
            look()
            worker.request_stop()

        worker._look = stop_in_a_look  # type: ignore[method-assign]
        worker.run()
        assert worker.termed

    def test_its_options_have_bounds(self) -> None:
        with pytest.raises(InvalidOption, match=r"sleep=0: the least is 0\.01 seconds"):
            Worker(channel_layers["default"], database_sleep_duration=0)
