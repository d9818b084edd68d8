"""A session over a Unix socket: what opens it, what ends it, and when the layer takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgpack
import pytest

from channels.decoupled import socket_carrier
from channels.decoupled.messages import ALIVE, VERSION
from channels.decoupled.options import LinkOptions
from channels.decoupled.socket_link import WRITE_MESSAGES
from channels.kit.types import Message
from channels.layers import InMemoryChannelLayer
from tests.decoupled import test_transport
from tests.decoupled.test_transport import Side
from tests.server.shell import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sockets without a file")

QUICK = LinkOptions(heartbeat=0.05, heartbeat_misses=4)
PATIENT = LinkOptions(heartbeat=0.05, heartbeat_misses=1000)


class Deaf(InMemoryChannelLayer):
    """Loses every batch: what arrives has come over a socket."""

    async def send(self, channel: str, message: Message, *, delay: float = 0.0) -> None:
        if message["type"] != "decoupled.batch":
            await super().send(channel, message)


async def offer_of(edge: Side) -> Message:
    """What the edge puts into the queue of offers."""
    await edge.transport.offer({"id": 1, "generation": 1})
    offer: Message = await edge.transport._layer.receive("decoupled.offers")
    return offer


def sides(
    layer: Any = None, options: LinkOptions = PATIENT, edge_options: LinkOptions | None = None
) -> AbstractAsyncContextManager[tuple[Side, Side]]:
    return test_transport.sides(layer or Deaf(), options, edge_options)


async def test_what_both_say_arrives_in_order_though_the_layer_carries_nothing() -> None:
    async with sides() as (worker, edge):
        worker.transport.meet(await offer_of(edge))
        for number in range(1, 2501):
            worker.say(edge, number)
        await eventually(lambda: len(edge.heard) == 2500)
        for number in range(1, 2501):
            edge.say(worker, number)
        await eventually(lambda: len(worker.heard) == 2500)
        assert worker.transport.statistics()["sockets"] == 1
        assert edge.transport.statistics()["sockets"] == 1
    assert edge.heard == [(worker.name, number) for number in range(1, 2501)]
    assert worker.heard == [(edge.name, number) for number in range(1, 2501)]


async def test_what_was_said_before_the_end_arrives_and_the_end_is_told_at_once() -> None:
    async with sides() as (worker, edge):
        worker.transport.meet(await offer_of(edge))
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        worker.say(edge, 2)
        worker.say(edge, 3)
        await worker.transport.close(1)
        await eventually(lambda: edge.dead)
        assert edge.numbers == [1, 2, 3]
        assert edge.dead == [worker.name]


async def test_a_new_session_begins_after_the_socket_has_ended() -> None:
    async with sides() as (worker, edge):
        offer = await offer_of(edge)
        worker.transport.meet(offer)
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        edge.transport.lost(edge.transport.links[worker.name])
        await eventually(lambda: worker.dead)
        worker.transport.meet(offer)
        worker.say(edge, 2)
        await eventually(lambda: edge.numbers == [1, 2])


@pytest.mark.parametrize("change", ["gone", "foreign", "none"])
async def test_where_the_socket_cannot_be_had_the_layer_carries_the_session(change: str) -> None:
    async with sides(InMemoryChannelLayer()) as (worker, edge):
        offer = await offer_of(edge)
        if change == "gone":
            offer["address"] += "-another"
        elif change == "foreign":
            # Of an edge in another layer: it is refused only once it has greeted.
            offer["token"] = b"0123456789abcdef"
        else:
            del offer["address"], offer["token"]
        worker.transport.meet(offer)
        for number in range(1, 51):
            worker.say(edge, number)
        await eventually(lambda: len(edge.heard) == 50)
        assert edge.numbers == list(range(1, 51))
        assert worker.transport.statistics()["sockets"] == 0
        assert not worker.dead


@pytest.mark.parametrize(("worker_link", "edge_link"), [("layer", "auto"), ("auto", "layer")])
async def test_either_side_can_be_told_to_use_the_layer(worker_link: str, edge_link: str) -> None:
    def options(link: str) -> LinkOptions:
        return LinkOptions(heartbeat=0.05, heartbeat_misses=1000, link=link)

    layer = InMemoryChannelLayer()
    async with sides(layer, options(worker_link), options(edge_link)) as (worker, edge):
        worker.transport.meet(await offer_of(edge))
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        assert edge.transport.statistics()["sockets"] == 0


async def test_a_process_of_another_user_is_refused_by_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sides(InMemoryChannelLayer()) as (worker, edge):
        offer = await offer_of(edge)
        monkeypatch.setattr(socket_carrier, "peer_uid", lambda _: os.geteuid() + 1)
        worker.transport.meet(offer)
        assert edge.name not in worker.transport.peers
        monkeypatch.undo()
        # The worker asks of its own socket, the edge of its loop's.
        monkeypatch.setattr(
            socket_carrier,
            "peer_uid",
            lambda found: os.geteuid() + (not isinstance(found, socket.socket)),
        )
        worker.transport.meet(offer)
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        assert edge.transport.counters["sockets_refused"]
        assert worker.transport.statistics()["sockets"] == 0


async def test_an_edge_that_does_not_answer_is_dead_after_its_heartbeats() -> None:
    async with sides(options=QUICK) as (worker, edge):
        offer = await offer_of(edge)
        silent = socket.socket(socket.AF_UNIX)
        silent.bind("\0" + offer["address"] + "-silent")
        silent.listen()
        offer["address"] += "-silent"
        worker.transport.meet(offer)
        await eventually(lambda: worker.dead)
        assert worker.dead == [edge.name]
        silent.close()


async def raw_client(edge: Side) -> socket.socket:
    """A connection that says nothing of its own."""
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    client.connect("\0" + (await offer_of(edge))["address"])
    return client


async def met_client(edge: Side) -> socket.socket:
    """Such a connection that has said hello as the worker "w", and was taken for it."""
    client, offer = await raw_client(edge), await offer_of(edge)
    hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
    client.send(msgpack.packb({**hello, "token": offer["token"]}))
    await eventually(lambda: "w" in edge.transport.peers)
    return client


async def ended(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(loop.sock_recv(client, 1000), 10):
            pass
    client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xc1",
        msgpack.packb({"type": "decoupled.hello", "version": 99}),
        msgpack.packb({"type": "decoupled.welcome", "version": VERSION}),
        msgpack.packb(
            {"type": "decoupled.hello", "version": VERSION, "sender": "x", "token": b"guessed!"}
        ),
    ],
)
async def test_whoever_greets_in_another_way_is_cut_off(said: bytes) -> None:
    async with sides(options=QUICK) as (worker, edge):
        client = await raw_client(edge)
        client.send(said)
        await ended(client)
        counters = edge.transport.counters
        assert counters["sockets_refused"] + counters["malformed"] >= 1
        worker.transport.meet(await offer_of(edge))
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)


async def test_whoever_says_nothing_is_cut_off_after_the_heartbeats() -> None:
    async with sides(options=QUICK) as (_, edge):
        await ended(await raw_client(edge))


async def test_malformed_messages_are_dropped_and_no_octets_end_the_edge() -> None:
    async with sides() as (worker, edge):
        offer = await offer_of(edge)
        client = await raw_client(edge)
        hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
        client.send(msgpack.packb({**hello, "token": offer["token"]}))
        client.send(msgpack.packb({"kind": "dance"}) + msgpack.packb([1]))
        client.send(msgpack.packb({"kind": "claim", "id": 7, "generation": 1}))
        await eventually(lambda: edge.heard)
        assert edge.heard == [("w", 7)]
        assert edge.transport.counters["malformed"] == 2
        client.send(b"\xc1")
        await ended(client)
        await eventually(lambda: edge.dead == ["w"])
        worker.transport.meet(offer)
        worker.say(edge, 1)
        await eventually(lambda: (worker.name, 1) in edge.heard)


async def test_a_message_over_the_bound_ends_the_session() -> None:
    small = LinkOptions(heartbeat_misses=1000, link_message_bytes=64 * 1024)
    async with sides(options=small) as (_, edge):
        offer = await offer_of(edge)
        client = await raw_client(edge)
        hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(
                client,
                msgpack.packb({**hello, "token": offer["token"]})
                + msgpack.packb({"kind": "claim", "id": b"x" * 4 * 1024 * 1024}),
            )
        await eventually(lambda: edge.dead == ["w"])
        client.close()


async def test_a_peer_that_does_not_read_takes_the_room_and_gives_it_back() -> None:
    small = LinkOptions(heartbeat_misses=1000, link_bytes=64 * 1024)
    async with sides(options=small) as (_, edge):
        offer = await offer_of(edge)
        client = await raw_client(edge)
        hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
        client.send(msgpack.packb({**hello, "token": offer["token"]}))
        await eventually(lambda: "w" in edge.transport.peers)
        event = {"type": "websocket.receive", "text": "x" * 60_000}
        message = {"kind": "event", "id": 1, "generation": 1, "sequence": 1, "event": event}
        count = 0
        while edge.transport.has_room("w"):
            edge.transport.post("w", message)
            count += 1
            await asyncio.sleep(0)
        assert count < 100, "the kernel's buffer and the bound"
        loop, reader, found = asyncio.get_running_loop(), msgpack.Unpacker(), 0
        while found < count + 1:
            reader.feed(await loop.sock_recv(client, 65536))
            found += sum(1 for _ in reader)
        assert edge.transport.has_room("w")
        assert edge.rooms
        client.close()


async def test_a_worker_that_comes_again_ends_its_session_before() -> None:
    async with sides() as (_, edge):
        offer = await offer_of(edge)
        hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
        packed = msgpack.packb({**hello, "token": offer["token"]})
        first, second = await raw_client(edge), await raw_client(edge)
        first.send(packed)
        await eventually(lambda: "w" in edge.transport.peers)
        second.send(packed)
        await eventually(lambda: edge.dead == ["w"])
        await ended(first)
        assert "w" in edge.transport.peers
        second.close()


async def test_one_process_knows_so_many_others_over_sockets_too() -> None:
    few = LinkOptions(heartbeat=0.05, heartbeat_misses=1000, max_peers=1)
    async with sides(options=few) as (worker, edge):
        offer = await offer_of(edge)
        worker.transport.meet(offer)
        worker.say(edge, 1)
        await eventually(lambda: edge.heard)
        client = await raw_client(edge)
        hello = {"type": "decoupled.hello", "version": VERSION, "sender": "w"}
        client.send(msgpack.packb({**hello, "token": offer["token"]}))
        await ended(client)
        assert edge.transport.counters["peers_refused"]
        assert edge.transport.peers == [worker.name]


async def test_who_ends_a_session_waits_for_what_the_other_has_not_read() -> None:
    """Closed at once, a socket cuts off what was said last if the other writes just then."""
    async with sides() as (_, edge):
        client = await met_client(edge)
        for number in range(1, 101):
            edge.transport.post("w", {"kind": "void", "id": number, "generation": 1})
        closing = asyncio.create_task(edge.transport.close(5))
        await eventually(lambda: not edge.transport.peers)
        for _ in range(10):
            await asyncio.sleep(0)
        client.send(msgpack.packb({"kind": "claim", "id": 1, "generation": 1}))
        said, reader = [], msgpack.Unpacker()
        while data := await asyncio.get_running_loop().sock_recv(client, 65536):
            reader.feed(data)
            # On a busy machine a heartbeat may pass meanwhile.
            said += [each for each in reader if each is not ALIVE]
        assert [each["id"] for each in said[1:]] == list(range(1, 101))
        assert not closing.done()
        client.close()
        await closing


async def test_much_that_is_said_in_one_turn_leaves_in_portions_and_in_order() -> None:
    """So that the other process works on the first while this one makes the last."""
    async with sides() as (_, edge):
        client = await met_client(edge)
        await asyncio.sleep(0)
        count = 2 * WRITE_MESSAGES + 1
        for number in range(1, count + 1):
            edge.transport.post("w", {"kind": "void", "id": number, "generation": 1})
        reader = msgpack.Unpacker()
        # No turn of the loop has passed.
        reader.feed(client.recv(65536))
        said = [each["id"] for each in reader if each is not ALIVE and "id" in each]
        assert said == list(range(1, count))
        await asyncio.sleep(0)
        await eventually(lambda: has_more(client))
        reader.feed(client.recv(65536))
        assert [each["id"] for each in reader if each is not ALIVE] == [count]
        client.close()


def has_more(client: socket.socket) -> bool:
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
