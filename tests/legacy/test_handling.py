"""What becomes of a message, by what its consumer does."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from django.core.signals import got_request_exception

from channels import Channel, Group, route
from channels.exceptions import DenyConnection
from channels.legacy import handling
from channels.legacy.exceptions import (
    ChannelSocketException,
    ConsumeLater,
    WebsocketCloseException,
)
from channels.legacy.handling import MessageHandler, handle_next
from channels.signals import consumer_finished, consumer_started
from tests.legacy.conftest import MakeSite


class Sender:
    """Sends the signals."""


def handler(layer: Any, **options: Any) -> MessageHandler:
    return MessageHandler(layer, Sender, **options)


def test_what_a_consumer_sends_leaves_after_the_signals_surround_it(site: MakeSite) -> None:
    seen: list[Any] = []

    def consumer(message: Any, name: str) -> None:
        seen.append(name)
        Channel("answers").send({"text": "hello"})
        assert layer.receive(["answers"]) == (None, None)

    def started(**kwargs: Any) -> None:
        seen.append(("started", kwargs["sender"], kwargs["environ"]))

    def finished(**kwargs: Any) -> None:
        seen.append(("finished", layer.receive(["answers"])[1]))

    layer = site([route("jobs", consumer, path="^/(?P<name>.*)$")])
    consumer_started.connect(started)
    consumer_finished.connect(finished)
    try:
        handling_one = handler(layer, callback=lambda *found: seen.append(found[0]))
        handling_one.handle("jobs", {"path": "/x"})
    finally:
        consumer_started.disconnect(started)
        consumer_finished.disconnect(finished)
    assert seen == ["jobs", ("started", Sender, {}), "x", ("finished", {"text": "hello"})]
    assert handling_one.counts == {"handled": 1}


@pytest.mark.parametrize(
    ("answer", "is_set", "replies"),
    [
        (None, True, [{"accept": True}]),
        (None, False, []),
        ({"close": True}, True, [{"close": True}]),
        ({"text": "hello"}, True, [{"text": "hello"}]),
    ],
)
def test_a_socket_that_nobody_has_answered(
    site: MakeSite, settings: Any, answer: Any, is_set: bool, replies: list[Any]
) -> None:
    def consumer(message: Any) -> None:
        Group("readers").add(message.reply_channel)
        if answer is not None:
            message.reply_channel.send(answer)

    settings.CHANNELS_ACCEPT_UNANSWERED = is_set
    layer = site([route("websocket.connect", consumer), route("websocket.receive", consumer)])
    reply = layer.new_channel("websocket.send!")
    handler(layer).handle("websocket.connect", {"reply_channel": reply, "path": "/"})
    found = []
    while (message := layer.receive([reply])[1]) is not None:
        found.append(message)
    assert found == replies
    handler(layer).handle("websocket.receive", {"reply_channel": reply, "path": "/", "text": ""})
    assert layer.receive([reply])[1] == answer


def test_a_message_that_is_put_back_comes_again_a_bounded_number_of_times(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    doomed: list[bool] = []

    def consumer(message: Any) -> None:
        doomed.append(message.__doomed__)
        raise ConsumeLater

    layer = site([route("jobs", consumer)])
    worker = handler(layer, retries=2)
    worker.handle("jobs", {"n": 1})
    for retries in (1, 2):
        content = layer.receive(["jobs"])[1]
        assert content == {"n": 1, "__retries__": retries}
        worker.handle("jobs", content)
    assert layer.receive(["jobs"]) == (None, None)
    assert doomed == [False, False, True]
    assert worker.counts == {"put_back": 2, "dropped_retries": 1}
    assert "it was put back 2 times already" in caplog.text


def test_what_cannot_be_put_back_is_counted_and_logged(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handling, "PUT_BACK_SECONDS", 0.0)

    def consumer(message: Any) -> None:
        raise ConsumeLater

    layer = site([route("jobs", consumer)], capacity=1)
    layer.send("jobs", {"n": 1})
    worker = handler(layer)
    worker.handle("jobs", {"n": 2})
    assert worker.counts == {"dropped_full": 1}
    assert "could not be put back" in caplog.text


def test_a_connection_is_denied_before_it_is_accepted(site: MakeSite) -> None:
    def consumer(message: Any) -> None:
        message.reply_channel.send({"accept": True})
        raise DenyConnection

    layer = site([route("websocket.connect", consumer)])
    reply = layer.new_channel("websocket.send!")
    handler(layer).handle("websocket.connect", {"reply_channel": reply})
    assert layer.receive([reply])[1] == {"close": True}
    assert layer.receive([reply])[1] == {"accept": True}


def test_only_a_connection_can_be_denied(site: MakeSite) -> None:
    def consumer(message: Any) -> None:
        raise DenyConnection

    layer = site([route("websocket.receive", consumer)])
    with pytest.raises(ValueError, match=r"only one of websocket.connect can deny"):
        handler(layer).handle("websocket.receive", {"reply_channel": "a.b!c"})


def test_an_exception_may_act_on_the_connection(site: MakeSite) -> None:
    class Pong(ChannelSocketException):
        def run(self, message: Any) -> None:
            message.reply_channel.send({"text": "pong"})

    def consumer(message: Any) -> None:
        raise Pong if message["text"] == "ping" else WebsocketCloseException(3000)

    layer = site([route("websocket.receive", consumer)])
    reply = layer.new_channel("websocket.send!")
    worker = handler(layer)
    for text in ("ping", "bye"):
        worker.handle("websocket.receive", {"reply_channel": reply, "text": text})
    assert [layer.receive([reply])[1] for _ in range(2)] == [{"text": "pong"}, {"close": 3000}]
    assert worker.counts == {"handled": 2}


def test_an_error_is_logged_with_the_consumers_name(
    site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    def consumer(message: Any) -> None:
        Channel("answers").send({"n": 1})
        raise LookupError("no such room")

    layer = site([route("jobs", consumer)])
    worker = handler(layer)
    collected: list[Any] = []

    def collect(**kwargs: Any) -> None:
        collected.append((kwargs["sender"], type(sys.exception())))

    got_request_exception.connect(collect)
    try:
        with pytest.raises(LookupError):
            worker.handle("jobs", {})
    finally:
        got_request_exception.disconnect(collect)
    assert collected == [(Sender, LookupError)]
    assert f"{__name__}." in caplog.text
    assert "no such room" in caplog.text
    assert worker.counts == {"failed": 1}
    assert layer.receive(["answers"])[1] == {"n": 1}


def test_an_exit_ends_the_consumer_alone(site: MakeSite, caplog: pytest.LogCaptureFixture) -> None:
    worker = handler(site([route("jobs", lambda _: sys.exit(3))]))
    worker.handle("jobs", {})
    assert worker.counts == {"failed": 1}
    assert "SystemExit: 3" in caplog.text


@pytest.mark.parametrize(
    ("channel", "content", "reason"),
    [
        ("jobs", [], "malformed"),
        ("jobs", None, "malformed"),
        ("jobs", {"reply_channel": 7}, "malformed"),
        ("jobs", {"__retries__": "many"}, "malformed"),
        ("jobs", {"reply_channel": b"\xff"}, "malformed"),
        ("other", {}, "unrouted"),
    ],
)
def test_a_message_that_nobody_handles_is_dropped(
    channel: str, content: Any, reason: str, site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    worker = handler(site([route("jobs", lambda _: pytest.fail("it was handled"))]))
    for _ in range(3):
        worker.handle(channel, content)
    assert worker.counts == {f"dropped_{reason}": 3}
    assert len(caplog.records) == 1, "one line, not one for each"


def test_what_shall_be_handled_next_is(site: MakeSite) -> None:
    seen: list[Any] = []

    def consumer(message: Any) -> None:
        seen.append(message["n"])
        if message["n"] < 2:
            assert handle_next("jobs", {"n": message["n"] + 1})
            seen.append("returned")

    worker = handler(site([route("jobs", consumer)]))
    worker.handle("jobs", {"n": 0})
    assert seen == [0, "returned", 1, "returned", 2]
    assert worker.counts == {"handled": 3}
    assert not handle_next("jobs", {}), "no worker is at work"


def test_an_error_of_what_is_handled_next_is_no_error_of_the_first(site: MakeSite) -> None:
    def consumer(message: Any) -> None:
        if message["n"]:
            raise LookupError
        handle_next("jobs", {"n": 1})

    worker = handler(site([route("jobs", consumer)]))
    worker.handle("jobs", {"n": 0})
    assert worker.counts == {"handled": 1, "failed": 1}
