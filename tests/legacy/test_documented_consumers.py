"""The consumers that guides to Channels 1 show: messages in, replies out, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_save
from django.http import HttpResponse
from django.test import Client as Browser

from channels import Channel, Group, include, route
from channels.handler import AsgiHandler, AsgiRequest
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.auth import channel_session_user, channel_session_user_from_http
from channels.legacy.handling import MessageHandler
from channels.legacy.origin import allowed_hosts_only
from channels.legacy.sessions import channel_session, enforce_ordering
from channels.legacy.worker import Worker
from tests.legacy.conftest import MakeSite

pytestmark = pytest.mark.django_db


class Socket:
    """A WebSocket as its interface server sees it."""

    def __init__(self, site: Site, path: str = "/", **request: Any) -> None:
        self.site = site
        self.path = path
        self.reply = site.layer.new_channel("websocket.send!")
        self.order = 0
        self.send("connect", headers=request.pop("headers", []), **request)

    def send(self, kind: str, **content: Any) -> None:
        """Send an event on, and let the worker handle what there is."""
        event = {"reply_channel": self.reply, "path": self.path, "order": self.order}
        self.order += 1
        self.site.layer.send(f"websocket.{kind}", event | content)
        self.site.work()

    def say(self, text: str) -> None:
        self.send("receive", text=text)

    def replies(self) -> list[dict[str, Any]]:
        """What has come for it since the last call."""
        found = []
        while (content := self.site.layer.receive([self.reply])[1]) is not None:
            found.append(content)
        return found


class Site:
    """A layer with its routing and one worker, which works when it is told to."""

    def __init__(self, layer: ChannelLayerWrapper) -> None:
        self.layer = layer
        self.worker = MessageHandler(layer, Worker)

    def work(self) -> None:
        while True:
            channel, content = self.layer.receive(sorted(self.layer.router.channels))
            if channel is None or content is None:
                return
            self.worker.handle(channel, content)


MakeGuide = Callable[..., Site]


@pytest.fixture
def guide(site: MakeSite, settings: Any) -> MakeGuide:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    return lambda *routing: Site(site(list(routing)))


ACCEPT = {"accept": True}


def ws_add(message: Any) -> None:
    message.reply_channel.send({"accept": True})
    Group("chat").add(message.reply_channel)


def ws_message(message: Any) -> None:
    Group("chat").send({"text": f"[user] {message.content['text']}"})


def ws_disconnect(message: Any) -> None:
    Group("chat").discard(message.reply_channel)


def test_a_response_written_by_a_consumer(guide: MakeGuide) -> None:
    def http_consumer(message: Any) -> None:
        response = HttpResponse(f"Hello world! You asked for {message.content['path']}")
        for chunk in AsgiHandler.encode_response(response):
            message.reply_channel.send(chunk)

    site = guide(route("http.request", http_consumer))
    reply = site.layer.new_channel("http.response!")
    request = {"reply_channel": reply, "method": "GET", "path": "/hello/", "headers": []}
    site.layer.send("http.request", request)
    site.work()
    answer = site.layer.receive([reply])[1]
    assert answer is not None
    assert (answer["status"], answer["content"]) == (200, b"Hello world! You asked for /hello/")


def test_a_view_called_by_a_consumer(guide: MakeGuide) -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(f"{request.method} {request.GET['q']}")

    def my_consumer(message: Any) -> None:
        django_request = AsgiRequest(message)
        django_response = view(django_request)
        for chunk in AsgiHandler.encode_response(django_response):
            message.reply_channel.send(chunk)
        django_request.close()

    site = guide(route("http.request", my_consumer))
    reply = site.layer.new_channel("http.response!")
    request = {"reply_channel": reply, "method": "GET", "path": "/", "query_string": b"q=x"}
    site.layer.send("http.request", request)
    site.work()
    answer = site.layer.receive([reply])[1]
    assert answer is not None
    assert answer["content"] == b"GET x"


def test_echo(guide: MakeGuide) -> None:
    def echo(message: Any) -> None:
        message.reply_channel.send({"text": message.content["text"]})

    site = guide(route("websocket.receive", echo))
    site.layer.router.check_default()
    socket = Socket(site)
    assert socket.replies() == [ACCEPT]
    socket.say("hello")
    assert socket.replies() == [{"text": "hello"}]


def test_a_chat_of_all(guide: MakeGuide) -> None:
    site = guide(
        route("websocket.connect", ws_add),
        route("websocket.receive", ws_message),
        route("websocket.disconnect", ws_disconnect),
    )
    first, second = Socket(site), Socket(site)
    assert first.replies() == second.replies() == [ACCEPT]
    first.say("hello")
    assert first.replies() == second.replies() == [{"text": "[user] hello"}]
    second.send("disconnect", code=1000)
    first.say("gone?")
    assert first.replies() == [{"text": "[user] gone?"}]
    assert second.replies() == []


@pytest.fixture
def _liveblog() -> Iterator[None]:
    def send_update(sender: Any, instance: Any, **_: Any) -> None:
        update = {"id": instance.id, "content": instance.username}
        Group("liveblog").send({"text": json.dumps(update)})

    post_save.connect(send_update, sender=User)
    yield
    post_save.disconnect(send_update, sender=User)


@pytest.mark.usefixtures("_liveblog")
def test_a_liveblog(guide: MakeGuide) -> None:
    def ws_connect(message: Any) -> None:
        Group("liveblog").add(message.reply_channel)
        message.reply_channel.send({"accept": True})

    site = guide(route("websocket.connect", ws_connect))
    socket = Socket(site)
    entry = User.objects.create_user("rosa")
    assert socket.replies() == [
        ACCEPT,
        {"text": json.dumps({"id": entry.id, "content": "rosa"})},
    ]


def test_rooms_with_names_from_the_query_string(guide: MakeGuide) -> None:
    @channel_session
    def ws_connect(message: Any, room_name: str) -> None:
        message.reply_channel.send({"accept": True})
        params = parse_qs(message.content["query_string"])
        if "username" in params:
            message.channel_session["username"] = params["username"]
            Group(f"chat-{room_name}").add(message.reply_channel)
        else:
            message.reply_channel.send({"close": True})

    @channel_session
    def ws_message(message: Any, room_name: str) -> None:
        Group(f"chat-{room_name}").send(
            {"text": message["text"], "username": message.channel_session["username"]}
        )

    @channel_session
    def ws_disconnect(message: Any, room_name: str) -> None:
        Group(f"chat-{room_name}").discard(message.reply_channel)

    path = r"^/(?P<room_name>[a-zA-Z0-9_]+)/$"
    site = guide(
        route("websocket.connect", ws_connect, path=path),
        route("websocket.receive", ws_message, path=path),
        route("websocket.disconnect", ws_disconnect, path=path),
    )
    rosa = Socket(site, "/kitchen/", query_string="username=rosa")
    other_room = Socket(site, "/cellar/", query_string="username=emil")
    nameless = Socket(site, "/kitchen/", query_string="")
    assert nameless.replies() == [ACCEPT, {"close": True}]
    rosa.say("hello")
    assert rosa.replies() == [ACCEPT, {"text": "hello", "username": ["rosa"]}]
    assert other_room.replies() == [ACCEPT]
    rosa.send("disconnect", code=1001)
    rosa.say("too late")
    assert rosa.replies() == []


@pytest.fixture
def login() -> Callable[[str], dict[str, Any]]:
    """Headers of a browser in which a user is logged in."""

    def logged_in(name: str) -> dict[str, Any]:
        browser = Browser()
        browser.force_login(User.objects.create_user(name))
        cookie = f"sessionid={browser.session.session_key}".encode()
        return {"headers": [[b"cookie", cookie], [b"origin", b"http://localhost:8000"]]}

    return logged_in


def test_users_talk_to_those_of_the_same_letter(guide: MakeGuide, login: Any) -> None:
    @allowed_hosts_only
    @channel_session_user_from_http
    def ws_add(message: Any) -> None:
        message.reply_channel.send({"accept": True})
        Group(f"chat-{message.user.username[0]}").add(message.reply_channel)

    @channel_session_user
    def ws_message(message: Any) -> None:
        Group(f"chat-{message.user.username[0]}").send({"text": message["text"]})

    @channel_session_user
    def ws_disconnect(message: Any) -> None:
        Group(f"chat-{message.user.username[0]}").discard(message.reply_channel)

    site = guide(
        route("websocket.connect", ws_add),
        route("websocket.receive", ws_message),
        route("websocket.disconnect", ws_disconnect),
    )
    rosa, rudi, emil = (Socket(site, **login(name)) for name in ("rosa", "rudi", "emil"))
    rosa.say("hello")
    assert rosa.replies() == rudi.replies() == [ACCEPT, {"text": "hello"}]
    assert emil.replies() == [ACCEPT]
    rosa.send("disconnect", code=1000)
    assert Socket(site, headers=[[b"origin", b"http://evil.example"]]).replies() == [
        {"close": True}
    ]


def test_routes_below_prefixes(guide: MakeGuide) -> None:
    def chat_connect(message: Any, room_name: str) -> None:
        message.reply_channel.send({"text": room_name})

    def poll_consumer(message: Any) -> None:
        message.reply_channel.send({"status": 204, "content": b"", "more_content": False})

    http_routing = [route("http.request", poll_consumer, path=r"^/poll/$", method=r"^POST$")]
    chat_routing = [
        route("websocket.connect", chat_connect, path=r"^/(?P<room_name>[a-zA-Z0-9_]+)/$")
    ]
    site = guide(include(chat_routing, path=r"^/chat"), include(http_routing))
    assert Socket(site, "/chat/kitchen/").replies() == [{"text": "kitchen"}]
    assert Socket(site, "/kitchen/").replies() == []
    reply = site.layer.new_channel("http.response!")
    for method in ("GET", "POST"):
        request = {"reply_channel": reply, "method": method, "path": "/poll/"}
        site.layer.send("http.request", request)
        site.work()
    answer = site.layer.receive([reply])[1]
    assert answer is not None
    assert answer["status"] == 204
    assert site.layer.receive([reply]) == (None, None)
    assert site.worker.counts["dropped_unrouted"] == 2


def test_messages_that_are_stored_by_a_consumer_of_their_own(guide: MakeGuide) -> None:
    stored: list[tuple[str, str]] = []

    def msg_consumer(message: Any) -> None:
        room = message.content["room"]
        stored.append((room, message.content["message"]))
        Group(f"chat-{room}").send({"text": message.content["message"]})

    @enforce_ordering
    def ws_connect(message: Any) -> None:
        room = message.content["path"].strip("/")
        message.channel_session["room"] = room
        Group(f"chat-{room}").add(message.reply_channel)
        message.reply_channel.send({"accept": True})

    @enforce_ordering
    def ws_message(message: Any) -> None:
        room = message.channel_session["room"]
        Channel("chat-messages").send({"room": room, "message": message["text"]})

    @enforce_ordering
    def ws_disconnect(message: Any) -> None:
        Group(f"chat-{message.channel_session['room']}").discard(message.reply_channel)

    site = guide(
        route("websocket.connect", ws_connect),
        route("websocket.receive", ws_message),
        route("websocket.disconnect", ws_disconnect),
        route("chat-messages", msg_consumer),
    )
    socket = Socket(site, "/kitchen/")
    texts = [f"message {n}" for n in range(20)]
    for text in texts:
        socket.say(text)
    Channel("chat-messages").send({"room": "kitchen", "message": "from elsewhere"})
    site.work()
    assert stored == [("kitchen", text) for text in [*texts, "from elsewhere"]]
    assert socket.replies() == [ACCEPT, *({"text": text} for _, text in stored)]
    socket.send("disconnect", code=1000)
    Group("chat-kitchen").send({"text": "too late"})
    assert socket.replies() == []


def test_asgi_py(site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = site([])
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")
    found: dict[str, Any] = {}
    source = (
        "import os\n"
        "from channels.asgi import get_channel_layer\n"
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "my_project.settings")\n'
        "channel_layer = get_channel_layer()\n"
    )
    exec(compile(source, "asgi.py", "exec"), found)
    assert found["channel_layer"] is layer.channel_layer
