"""Which consumer a message of Channels 1 goes to."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from channels import include, route, route_class
from channels.legacy.message import Message
from channels.legacy.routing import connect_consumer, null_consumer
from channels.routing import Router
from tests.legacy.conftest import MakeSite


def consumer_1(message: Any) -> None: ...


def consumer_2(message: Any, room: str = "") -> None: ...


def consumer_3(message: Any, **kwargs: str) -> None: ...


class Chat:
    @classmethod
    def channel_names(cls) -> set[str]:
        return {"websocket.receive", "websocket.connect"}


chat_routing = [
    route("websocket.connect", consumer_2, path=r"^/room/(?P<room>[a-z]+)/$"),
    route("websocket.connect", consumer_1, path=r"^/$"),
]
mapping = {"jobs": consumer_1, "mail": f"{__name__}.consumer_2"}
no_routing = "a string"


@pytest.fixture
def message(site: MakeSite) -> Any:
    layer = site()
    return lambda channel, **content: Message(content, channel, layer)


def test_the_first_route_of_the_channel_wins(message: Any) -> None:
    router = Router(
        [route("jobs", consumer_1), route("jobs", consumer_2), route("mail", null_consumer)]
    )
    assert router.match(message("jobs")) == (consumer_1, {})
    assert router.match(message("mail")) == (null_consumer, {})
    assert router.match(message("other")) is None
    assert router.channels == {"jobs", "mail"}


def test_a_route_of_several_channels(message: Any) -> None:
    router = Router([route(["jobs", "mail"], consumer_1)])
    assert router.match(message("mail")) == (consumer_1, {})
    assert router.channels == {"jobs", "mail"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"path": "/poll/", "method": "POST"}, {"n": ""}),
        ({"path": b"/poll/7", "method": b"POST"}, {"n": "7"}),
        ({"path": "/poll/", "method": "GET"}, None),
        ({"path": "/poll/"}, None),
        ({"path": b"/poll/\xff", "method": "POST"}, {"n": ""}),
        ({"path": "/a/poll/", "method": "POST"}, None),
    ],
)
def test_filters_are_matched_at_the_beginning(
    content: dict[str, Any], expected: dict[str, str] | None, message: Any
) -> None:
    router = Router([route("http.request", consumer_3, path=r"/poll/(?P<n>\d*)", method="POST$")])
    found = router.match(message("http.request", **content))
    assert found == (None if expected is None else (consumer_3, expected))


def test_a_filter_of_a_number(message: Any) -> None:
    router = Router([route("websocket.receive", consumer_1, order=r"^0$")])
    assert router.match(message("websocket.receive", order=0)) is not None
    assert router.match(message("websocket.receive", order=10)) is None


def test_an_include_cuts_its_prefix_off_for_the_routes_below(message: Any) -> None:
    router = Router([include(chat_routing, path=r"^/chat(?P<version>\d)")])
    found = message("websocket.connect", path="/chat2/room/kitchen/")
    assert router.match(found) == (consumer_2, {"version": "2", "room": "kitchen"})
    assert found["path"] == "/chat2/room/kitchen/"
    assert router.match(message("websocket.connect", path="/chat2/")) == (
        consumer_1,
        {"version": "2"},
    )
    assert router.match(message("websocket.connect", path="/room/kitchen/")) is None
    assert router.match(message("websocket.connect")) is None


def test_includes_nest_and_take_dotted_paths(message: Any) -> None:
    router = Router([include([include(f"{__name__}.chat_routing", path="/b")], path="^/a")])
    found = router.match(message("websocket.connect", path="/a/b/room/x/"))
    assert found == (consumer_2, {"room": "x"})
    assert router.channels == {"websocket.connect"}


def test_a_dict_of_channels_and_consumers(message: Any) -> None:
    for routing in (mapping, f"{__name__}.mapping"):
        assert Router(routing).match(message("mail")) == (consumer_2, {})


def test_a_class_names_its_channels(message: Any) -> None:
    router = Router([route_class(Chat, path="^/chat/$")])
    assert router.match(message("websocket.connect", path="/chat/")) == (Chat, {})
    assert router.channels == {"websocket.receive", "websocket.connect"}
    with pytest.raises(ImproperlyConfigured, match="no channel_names"):
        route_class(consumer_1)


def test_a_route_that_is_added_comes_last(message: Any) -> None:
    router = Router([route("jobs", consumer_1)])
    router.add_route(route("jobs", consumer_2))
    router.add_route(route("mail", consumer_2))
    assert router.match(message("jobs")) == (consumer_1, {})
    assert router.match(message("mail")) == (consumer_2, {})
    assert len(router.root.routing) == 3


def test_defaults_come_after_the_sites_own(message: Any) -> None:
    router = Router([route("websocket.connect", consumer_1, path="^/chat/$")])
    router.check_default(http_consumer=consumer_3)
    router.check_default()
    assert router.match(message("http.request", path="/")) == (consumer_3, {})
    assert router.match(message("websocket.connect", path="/chat/")) == (consumer_1, {})
    assert router.match(message("websocket.connect", path="/")) == (connect_consumer, {})
    for channel in ("websocket.receive", "websocket.disconnect"):
        assert router.match(message(channel, path="/")) == (null_consumer, {})
    assert len(router.root.routing) == 4


def test_the_default_consumer_accepts(site: MakeSite) -> None:
    layer = site()
    reply = layer.new_channel("websocket.send!")
    connect_consumer(Message({"reply_channel": reply}, "websocket.connect", layer), room="x")
    assert layer.receive([reply])[1] == {"accept": True}


@pytest.mark.parametrize("expression", [r"^/(\d+)/$", r"^/(?P<a>.)(.)"])
def test_a_group_without_a_name_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="a group without a name"):
        route("jobs", consumer_1, path=expression)
    with pytest.raises(ValueError, match="a group without a name"):
        include([], path=expression)


@pytest.mark.parametrize(
    ("routing", "said"),
    [
        ("nowhere.routing", "Cannot import channel routing 'nowhere.routing'"),
        (f"{__name__}.no_routing", "must be a list of .*found '.*no_routing', a str"),
        (None, "must be a list of .*found a NoneType"),
        ([consumer_1], "found <function consumer_1 .*> at position 0 of a list"),
    ],
)
def test_what_is_no_routing_is_named(routing: Any, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        Router(routing)


@pytest.mark.parametrize("consumer", ["nowhere.consumer", f"{__name__}.no_routing", 7])
def test_what_is_no_consumer_is_named(consumer: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="onsumer"):
        route("jobs", consumer)
