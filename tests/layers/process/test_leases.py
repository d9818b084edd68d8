"""Leases and delayed messages where a node, its broker and its loops come and go."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.fanout.delivery import Member
from channels.kit.clock import ManualClock
from channels.kit.mailbox import Mailbox
from channels.layers import InMemoryChannelLayer
from channels.layers.process import later
from channels.testing.layers.base import until
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer

JOBS = {"jobs": {"retry_delay": 0.0, "dead_letter": "dead", "max_attempts": 2}}
Make = Callable[..., LoopbackChannelLayer]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    broker, made = LoopbackBroker(), list[LoopbackChannelLayer]()

    def make_layer(**config: Any) -> LoopbackChannelLayer:
        layer = LoopbackChannelLayer(broker, delivery=JOBS, send_timeout=0.5, **config)
        layer.adopt_loop()
        made.append(layer)
        return layer

    yield make_layer
    for layer in made:
        await layer.close()


async def test_the_end_of_a_lease_waits_for_the_broker(make: Make) -> None:
    layer = make()
    await layer.send("jobs", {"type": "x"})
    _, lease = await layer.receive_leased("jobs")
    layer.transport.cut()
    ending = asyncio.create_task(lease.ack())
    await asyncio.sleep(0.01)
    layer.transport.restore()
    assert await ending
    assert layer.statistics()["acknowledged"] == 1


async def test_a_reader_waits_through_a_cut(make: Make) -> None:
    layer, other = make(), make()
    reading = asyncio.create_task(layer.receive_leased("jobs"))
    await asyncio.sleep(0.01)
    layer.transport.cut()
    await other.send("jobs", {"type": "x"})
    layer.transport.restore()
    message, _ = await asyncio.wait_for(reading, 10)
    assert message == {"type": "x"}


async def test_what_a_cancelled_receive_has_acknowledged_is_not_leased_but_sent_again(
    make: Make,
) -> None:
    layer, other = make(), make()
    await layer.new_channel()
    await other.send("jobs", {"type": "x"})
    layer.transport.lose_answers = 1
    reading = asyncio.create_task(layer.receive("jobs"))
    await until(lambda: len(layer.node.link.outbox) == 1, "the acknowledgement")
    reading.cancel()
    await asyncio.wait([reading])
    layer.transport.restore()
    message, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
    assert message == {"type": "x"}
    assert await lease.ack()


async def test_a_message_that_was_given_back_was_not_tried(make: Make) -> None:
    layer = make()
    await layer.send("jobs", {"type": "x"})
    for end in ("give_back", "give_back", "retry", "ack"):
        _, lease = await asyncio.wait_for(layer.receive_leased("jobs"), 10)
        assert lease.attempts == (2 if end == "ack" else 1)
        assert await getattr(lease, end)()
        assert not await lease.extend()
    counts = layer.statistics()
    assert (counts["given_back"], counts["retried"], counts["acknowledged"]) == (2, 1, 1)


async def test_what_a_closed_process_had_on_lease_comes_back(make: Make) -> None:
    one, two = make(), make()
    await one.send("jobs", {"type": "x"})
    await one.receive_leased("jobs")
    await one.close()
    _, lease = await asyncio.wait_for(two.receive_leased("jobs"), 10)
    assert lease.attempts == 2


async def test_a_delayed_send_whose_answer_was_lost_is_not_doubled(make: Make) -> None:
    layer = make()
    await layer.new_channel()
    layer.transport.lose_answers = 1
    sending = asyncio.create_task(layer.send("late", {"type": "x"}, delay=0.1))
    await asyncio.sleep(0.01)
    layer.transport.restore()
    await sending
    assert await asyncio.wait_for(layer.receive("late"), 10) == {"type": "x"}
    assert layer.transport.broker.engine.statistics()["delayed"] == 0
    assert not layer.transport.broker.engine.queues


@pytest.mark.parametrize("keys", [None, ["secret"]], ids=["open", "sealed"])
async def test_messages_that_are_kept_may_be_older_than_the_expiry(keys: list[str] | None) -> None:
    clock = ManualClock()
    layer = InMemoryChannelLayer(
        clock=clock, expiry=1, delivery=JOBS, symmetric_encryption_keys=keys
    )
    for channel in ("jobs", "other"):
        await layer.send(channel, {"type": "x"})
    clock.advance(100)
    message, lease = await layer.receive_leased("jobs")
    assert message == {"type": "x"}
    await lease.reject("old")
    assert (await layer.receive("dead"))["message"] == {"type": "x"}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(layer.receive("other"), 0.05)


async def test_dead_letters_without_room_wait_where_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    layer = InMemoryChannelLayer(clock=clock, delivery=JOBS, channel_capacity={"dead": 1})
    await layer.send("dead", {"type": "x"})
    await layer.send("jobs", {"type": "bad"})
    _, lease = await layer.receive_leased("jobs")
    await lease.reject("bad")
    assert "there is no room for it in dead" in caplog.text
    await layer.receive("dead")
    clock.advance(61)
    _, lease = await layer.receive_leased("jobs")
    await lease.reject("bad")
    assert (await layer.receive("dead"))["message"] == {"type": "bad"}


async def test_a_dead_letter_that_fails_too_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer(
        delivery={"*": {"max_attempts": 1, "dead_letter": "dead", "retry_delay": 0.0}}
    )
    await layer.send("jobs", {"type": "x"})
    for channel in ("jobs", "dead"):
        _, lease = await layer.receive_leased(channel)
        await lease.retry(reason="bad")
    assert "A message of dead was dropped after 1 attempts: bad" in caplog.text
    assert not layer.channels
    assert layer.statistics()["dropped_dead"] == 1


async def test_without_a_dead_letter_channel_it_is_dropped_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = InMemoryChannelLayer(delivery={"jobs": {"dead_letter": None}})
    await layer.send("jobs", {"type": "x"})
    _, lease = await layer.receive_leased("jobs")
    with caplog.at_level(logging.ERROR):
        assert await lease.reject("no use")
    assert "A message of jobs was dropped after 1 attempts: no use" in caplog.text


async def test_readers_on_several_loops_get_each_message_once() -> None:
    layer = InMemoryChannelLayer(delivery=JOBS)
    got: list[int] = []

    async def read() -> None:
        while True:
            message, lease = await layer.receive_leased("jobs")
            async with lease:
                got.append(message["number"])

    def run() -> None:
        with contextlib.suppress(TimeoutError):
            asyncio.run(asyncio.wait_for(read(), 1.0))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        while True:
            try:
                await layer.send("jobs", {"type": "x", "number": number})
                break
            except ChannelFull:
                await asyncio.sleep(0.001)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(got) == list(range(200))


async def test_an_attached_consumer_gets_delayed_messages() -> None:
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    mailbox = Mailbox()
    layer.attach(channel, Member(mailbox, asyncio.get_running_loop()))
    await layer.send(channel, {"type": "tick"}, delay=0.01)
    assert await asyncio.wait_for(mailbox.get_layer(), 10) == {"type": "tick"}
    layer.detach(channel)


async def test_a_clock_turned_by_hand_delivers_what_is_due() -> None:
    clock = ManualClock()
    layer = InMemoryChannelLayer(clock=clock)
    await layer.send("jobs", {"type": "x"}, delay=3600)
    assert layer.statistics()["transport_delayed"] == 1
    clock.advance(3600)
    assert await layer.receive("jobs") == {"type": "x"}


def test_sync_code_can_delay_too() -> None:
    layer = InMemoryChannelLayer()
    layer.sync.send("jobs", {"type": "x"}, delay=0.01)
    assert layer.sync.receive("jobs", timeout=10) == {"type": "x"}


async def test_a_lease_whose_end_could_not_be_told_may_be_ended_again(make: Make) -> None:
    layer = make()
    await layer.send("jobs", {"type": "x"})
    _, lease = await layer.receive_leased("jobs")
    layer.transport.cut()
    with pytest.raises(ChannelLayerUnavailable):
        await lease.ack()
    assert not lease.is_over
    layer.transport.restore()
    assert await lease.ack()


async def test_delayed_messages_of_a_process_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(later, "MAX_BYTES", 2500)
    layer = InMemoryChannelLayer()
    channel = await layer.new_channel()
    big = {"type": "x", "data": b"x" * 1000}
    for delay in (0.02, 60):
        await layer.send(channel, big, delay=delay)
    with pytest.raises(ChannelFull, match="2500 bytes"):
        await layer.send(channel, big, delay=60)
    assert await asyncio.wait_for(layer.receive(channel), 10) == big
    await layer.send(channel, big, delay=60)
    await layer.close()
    assert layer.statistics()["delayed_here"] == 0
