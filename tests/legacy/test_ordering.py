"""Messages of a socket in the order in which they were sent, whichever workers handle them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels import Channel, route
from channels.exceptions import ChannelFull
from channels.layers import LocalChannelLayer
from channels.legacy import sessions as module
from channels.legacy.asgi import ChannelLayerWrapper
from channels.legacy.exceptions import ConsumeLater
from channels.legacy.handling import MessageHandler
from channels.legacy.sessions import (
    enforce_ordering,
    session_for_reply_channel,
    wait_channel_name,
)
from channels.legacy.worker import Worker, WorkerGroup
from tests.legacy.conftest import MakeSite, Notes, message, working

pytestmark = pytest.mark.usefixtures("cached_sessions")


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
