"""Workers: which channels, how many at once, what is left to others, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from channels import Channel, route
from channels.legacy.asgi import ChannelLayerWrapper, channel_layers
from channels.legacy.worker import Worker, WorkerGroup
from channels.signals import worker_process_ready, worker_ready
from channels.testing.layers.base import until
from channels.worker import WorkerOptions
from tests.legacy.conftest import MakeSite, Notes, working


class Gate:
    """A consumer that says when it begins, and ends when it is let go."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.opened = threading.Semaphore(0)

    def __call__(self, message: Any) -> None:
        self.notes.add(("began", message.channel.name, message.get("n")))
        assert self.opened.acquire(timeout=30)
        self.notes.add(("ended", message.channel.name, message.get("n")))


@pytest.fixture
def gate(notes: Notes) -> Gate:
    return Gate(notes)


@pytest.fixture(params=["memory", "local"])
def any_site(
    request: pytest.FixtureRequest, site: MakeSite, short_path: Path
) -> Iterator[MakeSite]:
    if request.param == "memory":
        yield site
        return
    config = {"backend": "channels.layers.LocalChannelLayer", "directory": str(short_path)}
    yield lambda routing: site(routing, **config)
    async_to_sync(channel_layers["default"].layer.close)()


def unread(layer: ChannelLayerWrapper, channel: str) -> list[Any]:
    """What is left in a channel."""
    found = []
    while (message := layer.receive([channel], block=True, timeout=0.3)[1]) is not None:
        found.append(message["n"])
    return found


def test_messages_of_all_channels_are_handled(any_site: MakeSite, notes: Notes) -> None:
    layer = any_site(
        [route("a", lambda m: notes.add(m["n"])), route("b", lambda m: notes.add(m["n"]))]
    )
    with working(Worker(layer)):
        for n in range(20):
            Channel("ab"[n % 2]).send({"n": n})
            assert notes.next() == n


def test_messages_of_a_channel_are_handled_in_order(any_site: MakeSite, notes: Notes) -> None:
    layer = any_site([route("jobs", lambda m: notes.add(m["n"])), route("other", print)])
    for n in range(50):
        Channel("jobs").send({"n": n})
    with working(Worker(layer)):
        assert [notes.next() for _ in range(50)] == list(range(50))


def test_one_thread_takes_one_message_and_leaves_the_rest_to_others(
    any_site: MakeSite, gate: Gate, notes: Notes
) -> None:
    layer = any_site([route(name, gate) for name in "abcd"])
    worker = Worker(layer)
    with working(worker):
        for name in "abcd":
            Channel(name).send({"n": name})
        _, taken, _ = notes.next()
        assert worker.in_job
        rest = [name for name in "abcd" if name != taken]
        assert [unread(layer, name) for name in rest] == [[name] for name in rest]
        assert notes.is_empty
        gate.opened.release()
    assert not worker.in_job


def test_threads_are_counted_over_all_channels(
    any_site: MakeSite, gate: Gate, notes: Notes
) -> None:
    layer = any_site([route(name, gate) for name in "abc"])
    with working(WorkerGroup(layer, n_threads=3)):
        for name in "abc":
            for n in range(2):
                Channel(name).send({"n": n})
        began = [notes.next() for _ in range(3)]
        assert {what for what, _, _ in began} == {"began"}
        left = sum(len(unread(layer, name)) for name in "abc")
        assert left == 3
        assert notes.is_empty
        gate.opened.release(3)


def test_a_flood_on_one_channel_starves_no_other(site: MakeSite, notes: Notes) -> None:
    names = "abcd"
    layer = site([route(name, lambda m: notes.add(m.channel.name)) for name in names])
    for _ in range(25):
        for name in names:
            Channel(name).send({})
    with working(Worker(layer)):
        order = [notes.next() for _ in range(100)]
    for start in range(0, 100, 4):
        assert sorted(order[start : start + 4]) == list(names)


@pytest.mark.parametrize(
    ("only", "exclude", "expected"),
    [
        (None, None, ["http.request", "thumbnail", "websocket.connect", "websocket.receive"]),
        (["websocket.*"], None, ["websocket.connect", "websocket.receive"]),
        ("http.*", None, ["http.request"]),
        (None, ["thumbnail", "http.*"], ["websocket.connect", "websocket.receive"]),
        (["websocket.*"], ["*.connect"], ["websocket.receive"]),
        (["Websocket.*"], None, []),
    ],
)
def test_channels_are_chosen_by_globs(
    only: Any, exclude: Any, expected: list[str], site: MakeSite
) -> None:
    names = ["http.request", "thumbnail", "websocket.connect", "websocket.receive"]
    worker = Worker(site(), only_channels=only, exclude_channels=exclude)
    assert worker.apply_channel_filters(names) == expected


def test_channels_that_are_filtered_out_are_left_to_others(site: MakeSite, notes: Notes) -> None:
    layer = site([route(["a", "b"], lambda m: notes.add(m["n"]))])
    Channel("b").send({"n": "b"})
    Channel("a").send({"n": "a"})
    with working(Worker(layer, only_channels=["a"])):
        assert notes.next() == "a"
    assert unread(layer, "b") == ["b"]


def test_a_worker_without_a_channel_says_so(site: MakeSite) -> None:
    layer = site([route("jobs", print)])
    with pytest.raises(ValueError, match=r"No channel is left .* the routing has jobs"):
        Worker(layer, exclude_channels=["*"]).run()


def test_a_route_that_was_added_later_is_listened_to(site: MakeSite, notes: Notes) -> None:
    layer = site()
    worker = Worker(layer)
    layer.router.add_route(route("jobs", lambda m: notes.add(m["n"])))
    with working(worker):
        Channel("jobs").send({"n": 1})
        assert notes.next() == 1


def test_errors_and_malformed_messages_end_nothing(site: MakeSite, notes: Notes) -> None:
    def consumer(message: Any) -> None:
        notes.add(1 / message["n"])

    layer = site([route("jobs", consumer)])
    worker = Worker(layer)
    with working(worker):
        for content in ({"n": 0}, {}, {"n": 1, "reply_channel": 7}, {"n": 1}):
            Channel("jobs").send(content)
        assert notes.next() == 1
    assert worker.counts == {"failed": 2, "dropped_malformed": 1, "handled": 1}


def test_what_is_no_dict_ends_nothing(
    site: MakeSite, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = site([route("jobs", lambda m: notes.add(m["n"]))])
    receive, strange = layer.layer.receive, [None, ["a"], "text"]

    async def receiving(channel: str) -> Any:
        is_next = strange and channel == "jobs"
        return strange.pop() if is_next else await receive(channel)

    monkeypatch.setattr(layer.layer, "receive", receiving)
    worker = Worker(layer)
    with working(worker):
        Channel("jobs").send({"n": 1})
        assert notes.next() == 1
    assert worker.counts == {"dropped_malformed": 3, "handled": 1}


def test_a_channel_that_is_delivered_at_least_once_is_tried_again(
    site: MakeSite, notes: Notes
) -> None:
    def consumer(message: Any) -> None:
        notes.add(message["n"])
        if failures:
            raise failures.pop()

    failures = [LookupError("a bad moment")]
    delivery = {"jobs": {"max_attempts": 3, "retry_delay": 0.0}}
    layer = site([route("jobs", consumer)], delivery=delivery)
    worker = Worker(layer)
    with working(worker):
        Channel("jobs").send({"n": 1})
        assert [notes.next(), notes.next()] == [1, 1]
    assert layer.layer.statistics()["acknowledged"] == 1
    assert worker.counts == {"failed": 1, "handled": 1}


def test_the_callback_is_told_of_each_message(site: MakeSite, notes: Notes) -> None:
    layer = site([route("jobs", lambda m: None)])
    with working(Worker(layer, callback=lambda *found: notes.add(found))):
        Channel("jobs").send({"n": 1})
        channel, message = notes.next()
    assert (channel, message["n"]) == ("jobs", 1)


def test_it_says_when_it_is_ready(site: MakeSite, notes: Notes) -> None:
    def ready(sender: Any, **_: Any) -> None:
        notes.add(sender)

    worker = Worker(site([route("jobs", print)]))
    worker_ready.connect(ready)
    worker_process_ready.connect(ready)
    try:
        with working(worker):
            assert notes.next() is notes.next() is worker
    finally:
        worker_ready.disconnect(ready)
        worker_process_ready.disconnect(ready)


def test_a_stop_lets_the_consumer_end_and_takes_nothing_more(
    any_site: MakeSite, gate: Gate, notes: Notes
) -> None:
    layer = any_site([route("jobs", gate)])
    worker = Worker(layer)
    for n in range(2):
        Channel("jobs").send({"n": n})
    with working(worker):
        assert notes.next() == ("began", "jobs", 0)
        worker.request_stop()
        assert worker.termed
        gate.opened.release(2)
    assert notes.next() == ("ended", "jobs", 0)
    assert notes.is_empty
    assert unread(layer, "jobs") == [1]


async def test_a_free_thread_takes_nothing_after_the_stop(
    site: MakeSite, gate: Gate, notes: Notes
) -> None:
    layer = site([route("jobs", gate)])
    worker = WorkerGroup(layer, n_threads=2)
    running = asyncio.create_task(worker.handle())
    await layer.layer.send("jobs", {"n": 0})
    await until(lambda: not notes.is_empty, "the first message")
    worker.request_stop()
    for _ in range(10):
        await asyncio.sleep(0)
    await layer.layer.send("jobs", {"n": 1})
    for _ in range(10):
        await asyncio.sleep(0)
    gate.opened.release(2)
    await running
    assert await layer.layer.receive("jobs") == {"n": 1}


def run_in_main_thread(
    layer: ChannelLayerWrapper, make: Callable[..., Worker] = Worker, **options: Any
) -> None:
    Channel("jobs").send({"n": 1})
    make(layer, **options).run()


def test_sigterm_finishes_what_runs(site: MakeSite, notes: Notes) -> None:
    def consumer(message: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        notes.add("ended")

    before = signal.getsignal(signal.SIGTERM)
    run_in_main_thread(site([route("jobs", consumer)]))
    assert notes.next() == "ended"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Worker, {"options": WorkerOptions(shutdown_timeout=0.0)}),
        (WorkerGroup, {"stop_gracefully": False}),
    ],
)
def test_a_stop_without_grace_waits_for_no_consumer(
    make: Callable[..., Worker], options: Any, site: MakeSite, gate: Gate, notes: Notes
) -> None:
    def consumer(message: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        gate(message)

    run_in_main_thread(site([route("jobs", consumer)]), make, **options)
    assert notes.next()[0] == "began"
    gate.opened.release()
    assert notes.next()[0] == "ended"


async def test_it_runs_on_a_loop_too(site: MakeSite, notes: Notes) -> None:
    layer = site([route("jobs", lambda m: notes.add(m["n"]))])
    worker = Worker(layer)

    async def send() -> None:
        await layer.layer.send("jobs", {"n": 1})
        await until(lambda: not notes.is_empty, "the message")
        worker.request_stop()

    await asyncio.gather(worker.handle(), send())
    assert notes.next() == 1
