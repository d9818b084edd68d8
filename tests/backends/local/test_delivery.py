"""Delays and leases on the hub: bounded, handed over in order, returned from who has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from channels.backends.local import handover
from channels.backends.local.options import HubOptions
from channels.backends.local.peer import HubPeer
from channels.backends.local.protocol import VERSION, milliseconds
from channels.backends.local.switchboard import Switchboard
from channels.kit.clock import ManualClock
from channels.layers import LocalChannelLayer
from channels.layers.envelope import Envelope, Kind
from tests.backends.local.test_transport import MakeLayer, directory, make_layer, until

__all__ = ["directory", "make_layer"]

JOBS = {"jobs": {"visibility_timeout": 30, "dead_letter": "dead"}}


async def take(layer: LocalChannelLayer) -> Any:
    async with asyncio.timeout(10):
        return await layer.receive_leased("jobs")


async def test_the_next_hub_knows_what_is_delayed_and_what_is_on_lease(
    make_layer: MakeLayer,
) -> None:
    hub, worker = make_layer(delivery=JOBS), make_layer(delivery=JOBS)
    await hub.new_channel()
    for number in range(3):
        await hub.send("jobs", {"type": "x", "number": number})
    await hub.send("late", {"type": "x"}, delay=0.5)
    _, done = await take(worker)
    _, failed = await take(worker)
    assert hub.is_hub
    await hub.close()
    await until(lambda: worker.is_hub, "the worker's process takes over")
    assert await done.ack(), "its token is known there"
    assert await failed.retry(delay=0)
    message, lease = await take(worker)
    assert (message["number"], lease.attempts) == (1, 2)
    assert await lease.ack()
    message, lease = await take(worker)
    assert (message["number"], lease.attempts) == (2, 1)
    async with asyncio.timeout(10):
        assert await worker.receive("late") == {"type": "x"}


async def test_a_process_that_goes_returns_what_it_had_at_once(make_layer: MakeLayer) -> None:
    hub, first, second = (make_layer(delivery=JOBS) for _ in range(3))
    await hub.new_channel()
    await hub.send("jobs", {"type": "x"})
    await take(first)
    reader = asyncio.create_task(take(second))
    await first.close()
    _, lease = await reader
    assert lease.attempts == 2


class Board:
    """A switchboard and peers without sockets."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.board = Switchboard(HubOptions(**options), self.clock, lambda _: 100)

    def peer(self, name: str) -> HubPeer:
        made = HubPeer(None, 0, memoryview(b""))  # type: ignore[arg-type]
        self.tell(made, "hello", VERSION, name, b"", False, 1)
        return made

    def tell(self, peer: HubPeer, kind: str, *fields: Any) -> None:
        self.board.take(peer, [[kind, *fields]])

    def push(self, peer: HubPeer, number: int, size: int = 10, later: float | None = None) -> None:
        envelope = Envelope(Kind.CHANNEL, "jobs", b"x" * size, sender=b"12345678", seq=number)
        if later is None:
            self.tell(peer, "push", "jobs", envelope.encoded, 100)
        else:
            due = milliseconds(self.clock.monotonic() + later)
            self.tell(peer, "push_later", "jobs", envelope.encoded, due, 100)

    def lease(self, peer: HubPeer, count: int) -> None:
        self.tell(peer, "demand", "jobs", count, 10_000)


def test_what_is_held_takes_room_until_it_is_finished() -> None:
    bench = Board()
    peer = bench.peer("one")
    bench.push(peer, 1, size=1000)
    bench.push(peer, 2, size=1000, later=5)
    held = bench.board.engine.octets
    bench.lease(peer, 1)
    assert bench.board.engine.octets == held
    bench.board.engine.acknowledge(peer.leased[0].token)
    assert bench.board.engine.octets == held / 2
    bench.clock.advance(5)
    bench.lease(peer, 1)
    assert bench.board.engine.octets == held / 2
    bench.board.engine.release(peer.leased[1].token, 0, counted=True)
    assert bench.board.engine.octets == held / 2
    bench.board.engine.flush()
    assert bench.board.engine.octets == 0


def test_there_is_no_room_for_more_delayed_ones_than_the_memory_holds() -> None:
    bench = Board(message_memory=64 * 1024)
    peer = bench.peer("one")
    for number in range(1, 100):
        bench.push(peer, number, size=1000, later=5)
    assert 40 < bench.board.engine.statistics()["delayed"] < 65
    assert bench.board.counters["refused_full"] == 99 - bench.board.engine.statistics()["delayed"]


def test_what_was_not_written_to_a_peer_that_goes_was_no_attempt() -> None:
    bench = Board()
    one, two = bench.peer("one"), bench.peer("two")
    bench.push(one, 1)
    bench.lease(one, 1)
    assert one.leased
    bench.board.forget(one)
    bench.lease(two, 1)
    assert [leased.attempts for leased in two.leased] == [1]


def test_a_process_on_another_connection_keeps_its_leases() -> None:
    bench = Board()
    old = bench.peer("one")
    bench.push(old, 1)
    bench.lease(old, 1)
    token = old.leased.popleft().token
    new = bench.peer("one")
    bench.board.forget(old)
    assert bench.board.engine.acknowledge(token)
    assert not new.leased


def test_the_end_of_an_unknown_lease_is_refused() -> None:
    bench = Board()
    peer = bench.peer("one")
    bench.tell(peer, "acknowledge", b"no token")
    assert peer.done > peer.answered
    peer.write_answers()
    assert b"the lease is over" in b"".join(peer._unsent)


def test_handed_over_from_board_to_board(tmp_path: Path) -> None:
    old, new = Board(), Board()
    peer = old.peer("one")
    old.push(peer, 1)
    old.push(peer, 2)
    old.push(peer, 3, later=5)
    old.lease(peer, 2)
    tokens = [leased.token for leased in peer.leased]
    assert old.board.engine.release(tokens[1], 3, counted=True)
    handover.leave(old.board, tmp_path / "left")
    handover.take_over(new.board, tmp_path / "left")
    assert new.board.engine.octets == old.board.engine.octets
    assert new.board.engine.acknowledge(tokens[0])
    reader = new.peer("two")
    new.lease(reader, 10)
    assert not reader.leased
    new.clock.advance(5)
    new.board.engine.tick()
    found = [(each.data.seq, each.attempts) for each in reader.leased]  # type: ignore[union-attr]
    assert found == [(2, 2), (3, 1)]
