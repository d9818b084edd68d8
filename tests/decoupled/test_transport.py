"""Sessions between two processes: everything once and in order, or an end on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from channels.decoupled.messages import VERSION
from channels.decoupled.options import LinkOptions
from channels.decoupled.transport import LinkTransport
from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer
from tests.server.shell import eventually

QUICK = LinkOptions(heartbeat=0.05, heartbeat_misses=4)
#: For a test in which nobody dies.
PATIENT = LinkOptions(heartbeat=0.05, heartbeat_misses=1000)


class Side:
    """One end, and what it has heard."""

    def __init__(self, layer: Any, side: Any, options: LinkOptions = PATIENT) -> None:
        self.transport = LinkTransport(layer, side, options, self)
        self.heard: list[tuple[str, int]] = []
        self.dead: list[str] = []
        self.rooms = 0

    @property
    def name(self) -> str:
        return self.transport.inbox

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.heard]

    def on_message(self, peer: str, message: Message) -> None:
        self.heard.append((peer, message["id"]))

    def on_room(self, peer: str) -> None:
        self.rooms += 1

    def on_dead(self, peer: str) -> None:
        self.dead.append(peer)

    def say(self, other: Side, number: int, size: int = 100) -> None:
        kind = {"kind": "claim"} if self.transport._side == "worker" else {"kind": "void"}
        assert self.transport.post(other.name, {**kind, "id": number, "generation": 1}, size)


@contextlib.asynccontextmanager
async def sides(
    layer: Any = None, options: LinkOptions = PATIENT, edge_options: LinkOptions | None = None
) -> AsyncIterator[tuple[Side, Side]]:
    layer = layer or InMemoryChannelLayer()
    worker, edge = Side(layer, "worker", options), Side(layer, "edge", edge_options or options)
    await worker.transport.start()
    await edge.transport.start()
    try:
        yield worker, edge
    finally:
        await worker.transport.close(1)
        await edge.transport.close(1)


async def test_messages_of_both_sides_arrive_in_order() -> None:
    async with sides() as (worker, edge):
        for number in range(1, 2501):
            worker.say(edge, number)
        await eventually(lambda: len(edge.heard) == 2500)
        for number in range(1, 2501):
            edge.say(worker, number)
        await eventually(lambda: len(worker.heard) == 2500)
    assert edge.heard == [(worker.name, number) for number in range(1, 2501)]
    assert worker.heard == [(edge.name, number) for number in range(1, 2501)]


class Lossy(InMemoryChannelLayer):
    """Loses, doubles and refuses what is sent to an inbox, by turns."""

    turn = 0

    async def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        self.turn += 1
        if message["type"] == "decoupled.batch":
            if self.turn % 7 == 0:
                return
            if self.turn % 5 == 0:
                await super().send(channel, message)
            if self.turn % 11 == 0:
                raise ChannelLayerUnavailable("for a moment")
            if self.turn % 13 == 0:
                raise ChannelFull("for a moment")
        await super().send(channel, message)


async def test_what_the_layer_loses_or_doubles_arrives_once_and_in_order() -> None:
    async with sides(Lossy()) as (worker, edge):
        for number in range(1, 101):
            worker.say(edge, number)
            if number % 3 == 0:
                # A batch of its own for each few.
                await asyncio.sleep(0)
        await eventually(lambda: len(edge.heard) >= 100)
        for number in range(1, 101):
            edge.say(worker, number)
            await asyncio.sleep(0)
        await eventually(lambda: len(worker.heard) >= 100)
        counted = worker.transport.counters + edge.transport.counters
        assert edge.numbers == worker.numbers == list(range(1, 101))
        assert counted["batches_repeated"]
        assert not worker.dead
        assert not edge.dead


class Gate(InMemoryChannelLayer):
    """Loses everything while it is shut."""

    is_shut = False

    async def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        if not self.is_shut:
            await super().send(channel, message)


async def test_a_peer_that_falls_silent_is_dead_and_is_told_when_it_speaks_again() -> None:
    layer = Gate()
    worker, edge = Side(layer, "worker", PATIENT), Side(layer, "edge", QUICK)
    await worker.transport.start()
    await edge.transport.start()
    worker.say(edge, 1)
    edge.say(worker, 1)
    await eventually(lambda: edge.heard and worker.heard)
    layer.is_shut = True
    worker.say(edge, 2)
    await eventually(lambda: edge.dead)
    assert edge.dead == [worker.name]
    assert worker.dead == []
    layer.is_shut = False
    await eventually(lambda: worker.dead)
    assert edge.numbers == [1]
    # A new session begins with whatever is said next.
    worker.say(edge, 3)
    await eventually(lambda: edge.numbers == [1, 3])
    await worker.transport.close(1)
    await edge.transport.close(1)


async def test_closing_says_what_waits_and_ends_the_other_side_at_once() -> None:
    layer = InMemoryChannelLayer()
    async with sides(layer) as (worker, edge):
        edge.say(worker, 1)
        await eventually(lambda: worker.heard)
        worker.say(edge, 1)
        worker.say(edge, 2)
        await worker.transport.close(1)
        await eventually(lambda: edge.dead)
        assert edge.numbers == [1, 2]


async def test_more_than_the_bound_waits_for_its_confirmation() -> None:
    small = LinkOptions(heartbeat=0.05, heartbeat_misses=1000, link_bytes=64 * 1024)
    async with sides(options=small) as (worker, edge):
        worker.say(edge, 1, 64 * 1024)
        assert not worker.transport.has_room(edge.name)
        worker.say(edge, 2, 64 * 1024)
        worker.say(edge, 3, 64 * 1024)
        await eventually(lambda: len(edge.heard) == 3)
        assert worker.transport.has_room(edge.name)
        assert worker.rooms >= 1


async def test_one_process_knows_so_many_others_and_no_more() -> None:
    layer = InMemoryChannelLayer()
    few = LinkOptions(heartbeat=0.05, heartbeat_misses=1000, max_peers=1)
    async with sides(layer, few) as (worker, edge):
        other = Side(layer, "worker", few)
        await other.transport.start()
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        other.say(edge, 2)
        await eventually(lambda: edge.transport.counters["peers_refused"])
        assert edge.numbers == [1]
        await other.transport.close(1)


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "chat.message"},
        {"type": "decoupled.batch"},
        {"type": "decoupled.batch", "version": 99},
        {"type": "decoupled.offer", "version": VERSION, "edge": "x", "id": 1, "generation": 1},
        {"type": "decoupled.reset", "version": VERSION, "sender": "x", "session": b"12345678"},
        {
            "type": "decoupled.batch",
            "version": VERSION,
            "sender": "nobody",
            "session": b"12345678",
            "to": None,
            "number": 1,
            "seen": 10**9,
            "messages": [None, {}, {"kind": "claim"}, {"kind": "void", "id": 1, "generation": 1}],
        },
    ],
)
async def test_what_no_process_of_ours_says_is_dropped_and_ends_nothing(
    bad: Message, caplog: pytest.LogCaptureFixture
) -> None:
    layer = InMemoryChannelLayer()
    async with sides(layer) as (worker, edge):
        await layer.send(edge.name, bad)
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        assert edge.heard == [(worker.name, 1)]
        if bad["type"] != "decoupled.reset":
            assert edge.transport.counters["malformed"]
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_layer_that_delivers_by_receive_alone_will_do() -> None:
    class Plain:
        """The contract's verbs, and no more."""

        def __init__(self) -> None:
            layer = InMemoryChannelLayer()
            self.send, self.receive = layer.send, layer.receive
            self.new_channel = layer.new_channel

    async with sides(Plain()) as (worker, edge):
        worker.say(edge, 1)
        edge.say(worker, 1)
        await eventually(lambda: edge.heard and worker.heard)
