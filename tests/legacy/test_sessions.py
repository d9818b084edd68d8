"""Sessions of sockets and clients, and messages of a socket in their order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.sessions.backends import file
from django.core.cache import cache

from channels import Channel, route
from channels.exceptions import ChannelFull
from channels.layers import LocalChannelLayer
from channels.legacy import sessions as module
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.exceptions import ConsumeLater
from channels.legacy.handling import MessageHandler
from channels.legacy.message import Message
from channels.legacy.sessions import (
    channel_and_http_session,
    channel_session,
    enforce_ordering,
    http_session,
    session_for_reply_channel,
    wait_channel_name,
)
from channels.legacy.worker import Worker, WorkerGroup
from tests.legacy.conftest import MakeSite, Notes, working

ENGINES = "django.contrib.sessions.backends."


@pytest.fixture(autouse=True)
def _sessions(settings: Any) -> Iterator[None]:
    settings.SESSION_ENGINE = f"{ENGINES}cache"
    yield
    cache.clear()


@pytest.fixture
def layer(site: MakeSite) -> ChannelLayerWrapper:
    return site()


@pytest.fixture(params=["db", "file", "cache", "cached_db"])
def engine(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> str:
    if "db" in request.param:
        request.getfixturevalue("db")
    settings.SESSION_FILE_PATH = str(tmp_path)
    # The class keeps the path that it was first used with.
    if hasattr(file.SessionStore, "_storage_path"):
        del file.SessionStore._storage_path
    settings.SESSION_ENGINE = f"{ENGINES}{request.param}"
    return str(request.param)


def message(layer: Any, channel: str = "websocket.receive", **content: Any) -> Message:
    return Message({"reply_channel": "websocket.send.x!y", "path": "/", **content}, channel, layer)


def stored_session(key: str | None = None, **values: Any) -> Any:
    session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    session.update(values)
    session.save()
    return session


# The socket's session.


def test_a_sockets_session_lasts_from_message_to_message(
    engine: str, layer: ChannelLayerWrapper
) -> None:
    @channel_session
    def first(message: Any) -> None:
        assert message.channel_session.get("room") is None
        message.channel_session["room"] = "kitchen"

    @channel_session
    def second(message: Any, more: str) -> str:
        return f"{message.channel_session['room']} {more}"

    first(message(layer))
    assert second(message(layer), more="x") == "kitchen x"
    key = session_for_reply_channel("websocket.send.x!y").session_key
    assert key.startswith("chn")
    assert len(key) == 32
    assert session_for_reply_channel("websocket.send.x!z").session_key != key


def test_it_is_saved_after_an_error_too(layer: ChannelLayerWrapper) -> None:
    @channel_session
    def fails(message: Any) -> None:
        message.channel_session["n"] = 1
        raise LookupError

    with pytest.raises(LookupError):
        fails(message(layer))
    assert session_for_reply_channel("websocket.send.x!y")["n"] == 1


def test_a_method_of_a_consumer_class_may_have_it(layer: ChannelLayerWrapper) -> None:
    class Consumer:
        @channel_session
        def receive(self, message: Any, room: str) -> str:
            message.channel_session["room"] = room
            return room

    assert Consumer().receive(message(layer), room="x") == "x"
    assert session_for_reply_channel("websocket.send.x!y")["room"] == "x"


def test_decorators_share_one_session(layer: ChannelLayerWrapper) -> None:
    found = []

    @channel_session
    def inner(message: Any) -> None:
        found.append(message.channel_session)

    @channel_session
    def outer(message: Any) -> None:
        found.append(message.channel_session)
        inner(message)

    outer(message(layer))
    assert found[0] is found[1]


def test_what_cannot_have_a_session_is_named(layer: ChannelLayerWrapper, settings: Any) -> None:
    consumer = channel_session(lambda message: None)
    with pytest.raises(ValueError, match="needs a message with a reply channel"):
        consumer(Message({}, "jobs", layer))
    with pytest.raises(ValueError, match="must be called with a message: found str, int"):
        consumer("text", 7)
    settings.SESSION_ENGINE = f"{ENGINES}signed_cookies"
    with pytest.raises(ValueError, match="name another one in CHANNEL_SESSION_ENGINE"):
        consumer(message(layer))
    settings.CHANNEL_SESSION_ENGINE = f"{ENGINES}cache"
    consumer(message(layer))


def test_two_workers_create_a_session_at_once(
    engine: str, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked, and found none, before either creates it."""
    store = type(session_for_reply_channel("x.y!z"))
    exists = store.exists
    other: list[str] = []

    def looked_too_early(self: Any, key: str) -> bool:
        found = exists(self, key)
        if not other:
            other.append(key)
            store(session_key=key).save(must_create=True)
        return bool(found)

    monkeypatch.setattr(store, "exists", looked_too_early)

    @channel_session
    def consumer(message: Any) -> None:
        message.channel_session["n"] = 1

    consumer(message(layer))
    assert session_for_reply_channel("websocket.send.x!y")["n"] == 1


# The client's session.


@pytest.mark.parametrize("where", ["cookie", "query", "both"])
def test_the_clients_session_is_found(
    where: str, engine: str, layer: ChannelLayerWrapper, settings: Any
) -> None:
    session = stored_session(name="a")
    cookie = session.session_key if where == "cookie" else "other"
    content: dict[str, Any] = {"headers": [[b"cookie", f"sessionid={cookie}".encode()]]}
    if where != "cookie":
        content["query_string"] = f"session_key={session.session_key}".encode()

    @http_session
    def consumer(message: Any) -> str:
        message.http_session["seen"] = True
        return str(message.http_session["name"])

    assert consumer(message(layer, "websocket.connect", **content)) == "a"
    assert session.__class__(session.session_key)["seen"] is True


def test_a_client_without_a_session_gets_none(layer: ChannelLayerWrapper) -> None:
    @http_session
    def consumer(message: Any) -> Any:
        return message.http_session

    assert consumer(message(layer, "websocket.connect", headers=[])) is None


def test_no_session_is_made_for_a_key_that_is_not_stored(
    db: None, layer: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = f"{ENGINES}db"

    @http_session
    def consumer(message: Any) -> None:
        message.http_session["n"] = 1

    consumer(message(layer, query_string=b"session_key=abcdefghijklmnop"))
    assert not stored_session().__class__("abcdefghijklmnop").exists("abcdefghijklmnop")
    assert stored_session().model.objects.count() == 2, "those that this test has made itself"


def test_the_body_of_a_request_is_left_to_the_consumer(layer: ChannelLayerWrapper) -> None:
    channel = layer.new_channel("http.request.body?")
    layer.send(channel, {"content": b"x"})

    @http_session
    def consumer(message: Any) -> Any:
        return layer.receive([channel])[1]

    found = consumer(message(layer, "http.request", method="POST", body_channel=channel))
    assert found == {"content": b"x"}


@pytest.mark.parametrize("content", [{"headers": [[b"\xff"]]}, {"headers": 7}])
def test_what_is_no_request_has_no_client(content: Any, layer: ChannelLayerWrapper) -> None:
    consumer = http_session(lambda message: None)
    with pytest.raises(ValueError, match="cannot be read as a request"):
        consumer(message(layer, **content))
    with pytest.raises(ValueError, match="cannot be read as a request"):
        consumer(Message({}, "jobs", layer))


def test_the_clients_session_is_kept_for_the_whole_socket(layer: ChannelLayerWrapper) -> None:
    session = stored_session(name="a")
    query = f"session_key={session.session_key}".encode()

    @channel_and_http_session
    def consumer(message: Any) -> None:
        message.http_session["count"] = message.http_session.get("count", 0) + 1
        message.channel_session["count"] = message.channel_session.get("count", 0) + 1

    consumer(message(layer, "websocket.connect", query_string=query))
    consumer(message(layer))
    assert type(session)(session.session_key)["count"] == 2
    assert session_for_reply_channel("websocket.send.x!y")["count"] == 2


def test_a_socket_of_a_client_without_a_session(layer: ChannelLayerWrapper) -> None:
    @channel_and_http_session
    def consumer(message: Any) -> Any:
        return message.http_session

    assert consumer(message(layer, "websocket.connect")) is None
    assert consumer(message(layer)) is None


# In order.


@pytest.fixture
def ordered(layer: ChannelLayerWrapper) -> tuple[Callable[[int], None], list[int]]:
    """Hands the message of a number to an ordered consumer; and the numbers that it has had."""
    seen: list[int] = []

    @enforce_ordering
    def consumer(message: Any) -> None:
        seen.append(message["order"])

    def handle(order: int) -> None:
        consumer(message(layer, order=order))

    return handle, seen


def requeued(layer: Any) -> list[int]:
    found = []
    while (content := layer.receive(["websocket.receive"])[1]) is not None:
        assert "original_channel" not in content
        found.append(content["order"])
    return found


def test_messages_in_their_order_are_handled_at_once(
    engine: str, ordered: Any, layer: ChannelLayerWrapper
) -> None:
    handle, seen = ordered
    for order in range(3):
        handle(order)
    assert seen == [0, 1, 2]
    assert requeued(layer) == []


def test_a_message_out_of_turn_waits_and_comes_again(
    engine: str, ordered: Any, layer: ChannelLayerWrapper
) -> None:
    handle, seen = ordered
    for order in (3, 1, 2):
        handle(order)
    assert seen == requeued(layer) == []
    for order in range(4):
        handle(order)
        assert requeued(layer) == ([order + 1] if order < 3 else [])
    assert seen == [0, 1, 2, 3]


def test_the_next_number_is_let_through_after_an_error(layer: ChannelLayerWrapper) -> None:
    seen = []

    @enforce_ordering
    def consumer(message: Any) -> None:
        seen.append(message["order"])
        if not message["order"]:
            raise LookupError

    with pytest.raises(LookupError):
        consumer(message(layer, order=0))
    consumer(message(layer, order=1))
    assert seen == [0, 1]


def test_answers_leave_before_the_next_message_has_its_turn(layer: ChannelLayerWrapper) -> None:
    @enforce_ordering
    def consumer(message: Any) -> None:
        Channel("answers").send({"order": message["order"]})

    found: list[Any] = []
    send = layer.channel_layer.send

    def sending(channel: str, content: Any) -> None:
        found.append((channel, content["order"]))
        send(channel, content)

    layer.router.add_route(route("websocket.receive", consumer))
    worker = MessageHandler(layer, Worker)
    content = message(layer).content
    worker.handle("websocket.receive", {**content, "order": 1})
    layer.channel_layer.send = sending
    worker.handle("websocket.receive", {**content, "order": 0})
    assert found == [("answers", 0), ("websocket.receive", 1)]


def test_a_message_that_is_put_back_keeps_its_turn(layer: ChannelLayerWrapper) -> None:
    seen = []

    @enforce_ordering(slight=False)
    def consumer(message: Any) -> None:
        seen.append(message["order"])
        if not message["order"]:
            raise ConsumeLater

    worker = MessageHandler(layer, Worker, retries=1)
    layer.router.add_route(route("websocket.receive", consumer))
    content = message(layer, order=0).content
    worker.handle("websocket.receive", content)
    worker.handle("websocket.receive", {**content, "order": 1})
    assert seen == [0]
    again = layer.receive(["websocket.receive"])[1]
    assert again is not None
    worker.handle("websocket.receive", again)
    assert worker.counts["dropped_retries"] == 1
    assert requeued(layer) == [1], "one that is dropped in the end holds the others no longer"


def test_a_message_that_comes_twice_is_handled_once(ordered: Any, layer: Any) -> None:
    handle, seen = ordered
    for order in (0, 0, 1, 0):
        handle(order)
    assert seen == [0, 1]
    assert requeued(layer) == []


def test_a_turn_that_comes_while_a_message_is_put_aside_is_not_missed(
    engine: str, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker moves on between the look at the session and the waiting."""
    seen = []

    @enforce_ordering
    def consumer(message: Any) -> None:
        seen.append(message["order"])

    send = layer.channel_layer.send

    def sending(channel: str, content: Any) -> None:
        if channel == wait_channel_name("websocket.send.x!y", 1):
            consumer(message(layer, order=0))
        send(channel, content)

    monkeypatch.setattr(layer.channel_layer, "send", sending)
    consumer(message(layer, order=1))
    assert seen == [0]
    assert requeued(layer) == [1]


def test_of_two_workers_one_sends_a_waiting_message_on(
    ordered: Any, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, _ = ordered
    handle(1)
    meeting = threading.Barrier(2)
    store = type(session_for_reply_channel("x.y!z"))
    save = store.save

    def saving(self: Any, must_create: bool = False) -> None:
        if self.session_key.startswith("chc"):
            meeting.wait(30)
        save(self, must_create)

    monkeypatch.setattr(store, "save", saving)
    receive, reads = layer.channel_layer.receive, []

    def receiving(*args: Any, **kwargs: Any) -> Any:
        reads.append(args)
        return receive(*args, **kwargs)

    monkeypatch.setattr(layer.channel_layer, "receive", receiving)
    one = message(layer, order=0)
    workers = [threading.Thread(target=module.requeue_messages, args=(one, 1)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(reads) == 1, "the other does not wait for what it cannot get"
    assert requeued(layer) == [1]


def test_what_a_worker_left_that_was_killed_is_sent_on_by_the_next(
    ordered: Any, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, seen = ordered
    handle(1)
    monkeypatch.setattr(module, "requeue_messages", lambda *_: None)
    handle(0)
    monkeypatch.undo()
    handle(2)
    assert seen == [0]
    assert requeued(layer) == [1]


def test_a_message_whose_turn_it_is_can_be_sent_on_by_hand(
    ordered: Any, layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, _ = ordered
    handle(1)
    with monkeypatch.context() as patched:
        patched.setattr(module, "requeue_messages", lambda *_: None)
        handle(0)
    module.requeue_messages(message(layer))
    assert requeued(layer) == [1]


def test_a_full_channel_loses_no_waiting_message(site: MakeSite) -> None:
    """What reads the channel may be this very thread, so the message is handled here."""
    seen = []

    @enforce_ordering
    def consumer(message: Any) -> None:
        seen.append(message["order"])

    full = {"websocket.receive": 1}
    layer = site([route("websocket.receive", consumer)], channel_capacity=full)
    worker = MessageHandler(layer, Worker)
    content = message(layer).content
    for order in (2, 1):
        worker.handle("websocket.receive", {**content, "order": order})
    layer.send("websocket.receive", {"other": True})
    worker.handle("websocket.receive", {**content, "order": 0})
    assert seen == [0, 1, 2]
    assert worker.counts == {"handled": 5}


def test_a_socket_that_is_stuck_is_closed_before_too_much_waits(site: MakeSite) -> None:
    layer = site(capacity=2)
    consumer = enforce_ordering(lambda message: None)
    reply = layer.new_channel("websocket.send!")
    for order in (1, 2):
        consumer(message(layer, order=order, reply_channel=reply))
    with pytest.raises(ChannelFull, match=r"Message 3 of .* cannot wait .*: 2 others, from 0 on"):
        consumer(message(layer, order=3, reply_channel=reply))
    assert layer.receive([reply])[1] == {"close": 1013}


def test_a_socket_whose_message_expired_while_it_waited_is_closed(
    layer: ChannelLayerWrapper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    consumer = enforce_ordering(lambda message: None)
    reply = layer.new_channel("websocket.send!")
    consumer(message(layer, order=1, reply_channel=reply))
    layer.flush()
    consumer(message(layer, order=0, reply_channel=reply))
    assert layer.receive([reply])[1] == {"close": 1013}
    assert "has expired" in caplog.text


def test_a_consumer_may_delete_the_session(layer: ChannelLayerWrapper) -> None:
    @enforce_ordering
    def consumer(message: Any) -> None:
        message.channel_session.flush()

    consumer(message(layer, order=0))
    session = session_for_reply_channel("websocket.send.x!y")
    assert not session.exists(session.session_key)


def test_what_has_no_order_is_refused(layer: ChannelLayerWrapper) -> None:
    consumer = enforce_ordering(lambda message: None)
    with pytest.raises(ValueError, match="needs a message with an order: found None"):
        consumer(message(layer))
    with pytest.raises(ValueError, match="slight=True is no more"):
        enforce_ordering(slight=True)


@pytest.mark.parametrize("engine", ["file", "cache"], indirect=True)
def test_workers_that_share_a_socket_keep_its_order(
    engine: str, short_path: Path, notes: Notes
) -> None:
    """Two workers with two threads each, every one with a layer of its own."""

    @enforce_ordering
    def consumer(message: Any) -> None:
        notes.add(message["order"])

    routing = [route("websocket.receive", consumer)]
    layers = [
        ChannelLayerWrapper(
            LocalChannelLayer(directory=short_path, capacity=1000), "default", routing
        )
        for _ in range(3)
    ]
    sender, *others = layers
    workers = [WorkerGroup(layer, n_threads=2) for layer in others]
    orders = list(range(200))
    generator = random.Random(4)
    for start in range(0, 200, 8):
        block = orders[start : start + 8]
        generator.shuffle(block)
        orders[start : start + 8] = block
    with working(*workers):
        channel = Channel("websocket.receive", channel_layer=sender)
        for order in orders:
            channel.send({"reply_channel": "websocket.send.x!y", "order": order})
        assert [notes.next() for _ in range(200)] == list(range(200))
    assert all(worker.counts["handled"] for worker in workers), "both had a part in it"
    assert not any(name.startswith("dropped") for each in workers for name in each.counts)
    for layer in layers:
        async_to_sync(layer.layer.close)()
