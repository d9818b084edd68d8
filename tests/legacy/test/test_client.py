"""The plain client: messages in, replies out, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from channels import Channel, Group, route
from channels.exceptions import DenyConnection
from channels.legacy.exceptions import WebsocketCloseException
from channels.signals import consumer_finished, consumer_started
from channels.test import Client, apply_routes
from tests.legacy.conftest import MakeSite


def answer(message: Any, **kwargs: Any) -> str:
    message.reply_channel.send({"content": message.content["content"], **kwargs})
    return "returned"


def fail(message: Any) -> None:
    message.reply_channel.send({"sent": True})
    raise RuntimeError("the consumer")


def close(message: Any) -> None:
    raise WebsocketCloseException(4001)


def deny(message: Any) -> None:
    raise DenyConnection


ROUTES = [
    route("jobs", answer, kind=r"(?P<kind>\w+)"),
    route("failing", fail),
    route("closing", close),
    route("websocket.connect", deny),
]


@pytest.fixture
def client(site: MakeSite) -> Client:
    site(ROUTES)
    return Client()


def test_a_message_is_sent_and_consumed(client: Client) -> None:
    content = {"content": [1], "kind": "a"}
    assert client.send_and_consume("jobs", content) == "returned"
    assert content == {"content": [1], "kind": "a"}
    assert client.receive() == {"content": [1], "kind": "a"}
    assert client.receive() is None


def test_each_client_has_its_own_replies(client: Client) -> None:
    other = Client()
    other.send_and_consume("jobs", {"content": 1, "kind": "a"})
    assert client.receive() is None
    assert other.receive() is not None


def test_errors_are_raised_and_what_was_sent_is_sent(client: Client) -> None:
    with pytest.raises(RuntimeError, match="the consumer"):
        client.send_and_consume("failing")
    assert client.receive() == {"sent": True}


def test_an_action_on_the_socket_is_carried_out(client: Client) -> None:
    client.send_and_consume("closing")
    assert client.receive() == {"close": 4001}


def test_a_denied_connection_is_an_error(client: Client) -> None:
    with pytest.raises(DenyConnection):
        client.send_and_consume("websocket.connect")


def test_there_must_be_a_message_and_a_route(client: Client) -> None:
    with pytest.raises(AssertionError, match="There is no message on channel 'jobs'"):
        client.consume("jobs")
    with pytest.raises(AssertionError, match=r"No route matches a message on channel 'jobs' with"):
        client.send_and_consume("jobs", {"other": 1})
    assert client.consume("jobs", fail_on_none=False) is None
    assert client.send_and_consume("jobs", {"other": 1}, fail_on_none=False) is None


def test_a_channel_has_a_consumer(client: Client) -> None:
    assert client.get_consumer_by_channel("failing") is fail
    assert client.get_consumer_by_channel("nobody") is None


def test_it_hears_a_group(client: Client) -> None:
    client.join_group("news")
    Group("news").send({"text": "hi"})
    assert client.receive() == {"text": "hi"}


def test_messages_of_other_channels_are_read(client: Client) -> None:
    Channel("jobs").send({"content": 1})
    message = client.get_next_message("jobs")
    assert message is not None
    assert (message.channel.name, message.content) == ("jobs", {"content": 1})


def test_signals_surround_the_consumer(client: Client) -> None:
    heard: list[str] = []

    def started(**_: Any) -> None:
        heard.append("started")

    def finished(**_: Any) -> None:
        heard.append("finished")

    consumer_started.connect(started)
    consumer_finished.connect(finished)
    try:
        with apply_routes(route("jobs", lambda message: heard.append("consumed"))):
            client.send_and_consume("jobs")
    finally:
        consumer_started.disconnect(started)
        consumer_finished.disconnect(finished)
    assert heard == ["started", "consumed", "finished"]
