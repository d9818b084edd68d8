"""What is said on a channel, and when: to a broker that is played by the test, frame by frame.

RabbitMQ itself punishes each of these only when its processes happen to run in a certain order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pamqp.frame
from pamqp import commands

from channels.backends.rabbitmq.channel import AmqpChannel, Broken, Properties
from channels.backends.rabbitmq.consumers import Consumers
from channels.backends.rabbitmq.transactions import Transactions


class Wire:
    """Takes down the methods that were written."""

    frame_max = 131_072

    def __init__(self) -> None:
        self.said: list[str] = []

    def write_frame(self, frame: Any, number: int) -> None:
        del number
        self.said.append(frame.name)

    def write(self, data: bytes) -> None:
        self.said.append(pamqp.frame.unmarshal(data)[2].name)

    def fail(self, error: Broken) -> None:
        raise error

    def since(self, last: str) -> list[str]:
        """What was said after the last of these."""
        index = len(self.said) - self.said[::-1].index(last)
        return self.said[index:]


class Taker(Consumers):
    """Puts each message into another queue, as readers do."""

    def take(
        self, channel: str, transactions: Transactions, method: Any, properties: Any, body: bytes
    ) -> None:
        del properties
        self.satisfied(channel)
        transactions.publish("hand", Properties(), body)
        if not self.wanted(channel):
            self._stop(channel)
        transactions.acknowledge(method.delivery_tag)
        transactions.commit()


async def declare(channel: str) -> Sequence[str]:
    return (channel,)


def make_taker(channel: AmqpChannel) -> Taker:
    loop = asyncio.get_running_loop()
    taker = Taker(declare, lambda _: None, lambda work, **_: loop.create_task(work))
    taker.open(channel)
    return taker


def deliver(channel: AmqpChannel, tag: str, number: int) -> None:
    channel.take_content(commands.Basic.Deliver(tag, number, False, "", "q"), Properties(), b"")


async def turns() -> None:
    """Let all run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_is_said_while_a_commit_is_under_way() -> None:
    wire = Wire()
    channel = AmqpChannel(wire, 1)
    transactions = Transactions(channel)
    transactions.publish("q", Properties(), b"")
    first = transactions.commit()
    transactions.acknowledge(1)
    asked = transactions.call(commands.Basic.Get(0, "q"))
    second = transactions.commit()
    assert wire.since("Tx.Commit") == []
    channel.take(commands.Tx.CommitOk())
    await turns()
    assert wire.said[-3:] == ["Basic.Ack", "Basic.Get", "Tx.Commit"]
    channel.take(commands.Basic.GetEmpty())
    channel.take(commands.Tx.CommitOk())
    await turns()
    assert first.done()
    assert second.done()
    assert isinstance(asked.result(), commands.Basic.GetEmpty)


async def test_a_commit_that_is_not_answered_fails_with_all_that_waits_for_it() -> None:
    channel = AmqpChannel(Wire(), 1)
    transactions = Transactions(channel)
    waiting = [
        transactions.commit(),
        transactions.call(commands.Basic.Get(0, "q")),
        transactions.commit(),
    ]
    channel.shut(Broken("gone"))
    await turns()
    assert all(isinstance(each.exception(), Broken) for each in waiting)


async def test_a_consumer_is_answered_out_of_turn() -> None:
    channel = AmqpChannel(Wire(), 1)
    consumers = {tag: channel.call(commands.Basic.Consume(0, "q", tag)) for tag in ("a", "b")}
    asked = channel.call(commands.Basic.Get(0, "q"))
    channel.take_content(commands.Basic.GetOk(7, False, "", "q", 0), Properties(), b"message")
    assert asked.result()[2] == b"message"
    channel.take(commands.Basic.ConsumeOk("b"))
    assert consumers["b"].done()
    assert not consumers["a"].done()


async def test_a_consumer_is_not_cancelled_before_it_has_begun() -> None:
    wire = Wire()
    channel = AmqpChannel(wire, 1)
    taker = make_taker(channel)
    taker.demand("q", 1)
    await turns()
    assert wire.said[-1] == "Basic.Consume"
    taker.demand("q", 0)
    await turns()
    assert wire.said[-1] == "Basic.Consume"
    channel.take(commands.Basic.ConsumeOk("reader-1"))
    await turns()
    assert wire.said[-1] == "Basic.Cancel"


async def test_the_last_message_cancels_its_consumer_before_it_is_acknowledged() -> None:
    wire = Wire()
    channel = AmqpChannel(wire, 1)
    taker = make_taker(channel)
    assert taker.transactions is not None
    # The consumer is asked for behind a commit, and all that follows comes with one read.
    taker.transactions.commit()
    taker.demand("q", 1)
    await turns()
    channel.take(commands.Tx.CommitOk())
    await turns()
    assert wire.said[-1] == "Basic.Consume"
    channel.take(commands.Basic.ConsumeOk("reader-1"))
    deliver(channel, "reader-1", 1)
    await turns()
    said = wire.since("Basic.Consume")
    assert said == ["Basic.Publish", "Basic.Cancel", "Basic.Ack", "Tx.Commit"]
