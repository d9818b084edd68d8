"""What only NATS' layer does: acknowledgements that are lost, and the window of `reliable`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from channels.backends.nats.connection import Broken, Message
from channels.backends.nats.transport import NatsTransport
from tests.cluster.history import PublisherLog, judge_queue
from tests.cluster.proxy import ChaosProxy
from tests.cluster.traffic import Reader, publish, quiet, until

MakeLayer = Callable[..., Any]


@pytest.mark.parametrize("site", ["nats"], indirect=True)
@pytest.mark.parametrize(
    ("is_heard", "others"), [(True, True), (False, True), (False, False)], ids=str
)
async def test_a_reader_away_for_longer_than_ack_wait_loses_and_doubles_nothing(
    proxy: ChaosProxy, make_layer: MakeLayer, is_heard: bool, others: bool
) -> None:
    sender, away = make_layer(ack_wait=1.0), make_layer(proxy.port, ack_wait=1.0)
    log = PublisherLog("p")
    transport = away.node.transport
    assert isinstance(transport, NatsTransport)
    async with Reader(away, channel="work") as far:
        await until(lambda: transport._stream is not None, "its connection")
        connection = transport._connection
        assert connection is not None
        request = connection.request

        def interrupted(subject: str, data: bytes, *more: Any) -> asyncio.Future[Message]:
            """It ends when the server has heard an acknowledgement, or just before."""
            if data != b"+ACK":
                return request(subject, data, *more)
            if is_heard:
                request(subject, data)
                connection.barrier().add_done_callback(lambda _: connection.fail(Broken("test")))
            else:
                connection.fail(Broken("test"))
            proxy.refuse()
            lost: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            connection.ended.add_done_callback(lambda _: lost.set_exception(Broken("test")))
            return lost

        connection.request = interrupted  # type: ignore[method-assign,assignment]
        await publish(sender, log, 1, channel="work")
        await until(connection.ended.done, "the cut")
        async with Reader(sender, channel="work" if others else "other") as near:
            await asyncio.sleep(1.5)
            await proxy.accept()
            await until(lambda: len(far.marks) + len(near.marks) == 1, "the message")
            await quiet([far.marks, near.marks], 1.5)
        assert len(near.marks) == (others and not is_heard)
    assert judge_queue([log], {"far": far.marks, "near": near.marks}).is_clean


@pytest.mark.parametrize("site", ["nats-reliable"], indirect=True)
async def test_a_reliable_member_that_is_away_for_too_long_is_told(
    proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    config: Any = {"window": 3.0, "ping_interval": 0.5}
    sender, away = make_layer(**config), make_layer(proxy.port, **config)
    log, gaps = PublisherLog("p"), list[Any]()
    away.add_gap_listener(gaps.append)
    async with Reader(away, group="room") as reader:
        proxy.refuse()
        proxy.cut()
        await publish(sender, PublisherLog("missed"), 1, group="room")
        # Longer than it is kept: the window, and twice the interval of marks.
        await asyncio.sleep(5.0)
        await proxy.accept()
        await until(lambda: bool(gaps), "the gap is told")
        await publish(sender, log, 1, group="room")
        await until(lambda: len(reader.marks) == 1, "what comes later")
    assert gaps == [None]
