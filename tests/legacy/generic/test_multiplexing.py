"""Several streams on one socket."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from channels import route_class
from channels.exceptions import SendNotAvailableOnDemultiplexer
from channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from channels.legacy.message import Message
from channels.test import ChannelTestCase, WSClient, apply_routes
from tests.legacy.conftest import MakeSite
from tests.legacy.routes import routed


class Echo(JsonWebsocketConsumer):
    groups = ["echoes"]

    def connect(self, message: Message, **kwargs: Any) -> None:
        kwargs["multiplexer"].send({"hello": "echo"})

    def receive(  # type: ignore[override] # as programs of that time write it
        self, content: Any, multiplexer: WebsocketMultiplexer, **kwargs: Any
    ) -> None:
        multiplexer.send({"original": content, "kwargs": kwargs})

    def disconnect(self, message: Message, **kwargs: Any) -> None:
        kwargs["multiplexer"].send({"bye": "echo"})


class Direct(JsonWebsocketConsumer):
    """Has no thought for streams."""

    def connect(self, message: Message, **kwargs: Any) -> None:
        """The demultiplexer has accepted."""

    def receive(self, content: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self.send({"direct": content})


class Failing(Direct):
    def disconnect(self, message: Message, **kwargs: Any) -> None:
        raise RuntimeError("the failing stream")


def count(message: Message, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
    if message.channel.name == "websocket.receive":
        multiplexer.send({"letters": len(message["text"])})


class Streams(WebsocketDemultiplexer):
    consumers = {"failing": Failing, "echo": Echo, "direct": Direct, "count": count}


@routed(route_class(Streams, path=r"^/(?P<id>\d+)$"))
class TestDemultiplexer(ChannelTestCase):
    def setUp(self) -> None:
        self.client: Any = WSClient()

    def receive(self, text: Any) -> None:
        self.client.send_and_consume("websocket.receive", text=text, path="/5")

    def test_it_accepts_first_and_then_opens_the_streams(self) -> None:
        self.client.send_and_consume("websocket.connect", path="/5")
        assert self.client.receive() == {"stream": "echo", "payload": {"hello": "echo"}}
        assert self.client.receive() is None

    def test_a_payload_goes_to_its_streams_consumer(self) -> None:
        self.receive({"stream": "echo", "payload": {"a": 1}})
        answer = {"original": {"a": 1}, "kwargs": {"id": "5"}}
        assert self.client.receive() == {"stream": "echo", "payload": answer}
        self.receive({"stream": "count", "payload": {}})
        assert self.client.receive() == {"stream": "count", "payload": {"letters": 2}}

    def test_a_consumer_that_sends_past_its_stream_is_told(self) -> None:
        with pytest.raises(SendNotAvailableOnDemultiplexer, match="Direct serves a stream"):
            self.receive({"stream": "direct", "payload": {}})

    def test_the_same_class_serves_sockets_of_its_own_afterwards(self) -> None:
        with pytest.raises(SendNotAvailableOnDemultiplexer):
            self.receive({"stream": "direct", "payload": {}})
        with apply_routes(route_class(Direct)):
            self.receive({"x": 1})
        assert self.client.receive() == {"direct": {"x": 1}}

    def test_the_demultiplexer_itself_has_no_stream(self) -> None:
        class Talking(Streams):
            def connect(self, message: Message, **kwargs: Any) -> None:
                self.send({"hello": "all"})

        with (
            apply_routes(route_class(Talking)),
            pytest.raises(SendNotAvailableOnDemultiplexer, match="which name a stream"),
        ):
            self.client.send_and_consume("websocket.connect")
        with pytest.raises(SendNotAvailableOnDemultiplexer):
            Streams.group_send("echoes", {})

    def test_all_streams_are_closed_though_one_of_them_fails(self) -> None:
        with pytest.raises(RuntimeError, match="the failing stream"):
            self.client.send_and_consume("websocket.disconnect", path="/5")
        assert self.client.receive() == {"stream": "echo", "payload": {"bye": "echo"}}

    def test_groups_hear_on_a_stream(self) -> None:
        self.client.send_and_consume("websocket.connect", path="/5")
        self.client.receive()
        day = datetime.date(2017, 1, 2)
        WebsocketMultiplexer.group_send("echoes", "echo", {"day": day}, close=True)
        message = self.client.get_next_message(self.client.reply_channel)
        text = '{"stream": "echo", "payload": {"day": "2017-01-02"}}'
        assert message.content == {"text": text, "close": True}


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ([1], r"A multiplexed frame is .*: found \[1\]"),
        ({"stream": "echo"}, "A multiplexed frame is"),
        ({"stream": "other\n", "payload": {}}, r"stream 'other\\\\n': expected one of .*echo"),
        ({"stream": ["echo"], "payload": {}}, "No consumer for the stream"),
        ({"stream": "echo", "payload": [1]}, r"payload .* for 'echo' is \[1\]"),
    ],
)
def test_a_frame_of_another_form_is_refused(site: MakeSite, frame: Any, said: str) -> None:
    site([route_class(Streams)])
    with pytest.raises(ValueError, match=said):
        WSClient().send_and_consume("websocket.receive", text=frame)


class Strict(WebsocketConsumer):
    strict_ordering = True

    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        kwargs["multiplexer"].send(message["text"])


class StrictStreams(WebsocketDemultiplexer):
    consumers = {"one": Strict, "two": Strict, "loose": Echo}


@routed(route_class(StrictStreams))
class TestStrictOrdering(ChannelTestCase):
    def test_the_order_is_that_of_the_socket(self) -> None:
        client = WSClient()
        client.send_and_consume("websocket.connect", {"order": 0}, check_accept=False)
        while client.receive() is not None:
            pass
        for order, stream in ((2, "two"), (3, "one"), (1, "one")):
            frame = {"stream": stream, "payload": {"order": order}}
            client.send_and_consume("websocket.receive", {"order": order}, text=frame)
        for _ in range(2):
            client.consume("websocket.receive")
        heard = [client.receive() for _ in range(3)]
        assert [each["stream"] for each in heard] == ["one", "two", "one"]
        assert client.receive() is None
