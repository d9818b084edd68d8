"""What others may put into the backend, and how much: forged messages, and floods."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from channels.exceptions import ChannelFull, ChannelsError
from channels.layers.codec import MsgpackSerializer
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import ALL_NODES, new_sender
from channels.layers.process.control import pack_question
from channels.layers.process.later import pack_later
from channels.layers.seal import Seal
from channels.testing.layers.base import ConformanceBase, MakeLayer, soon, until

#: Forged envelopes that are on their way at a time.
_AT_A_TIME = 50
#: A message's text in floods, and how often three are sent: 48 MiB, of which 32 find no reader.
_FLOOD_TEXT = 128 * 1024
_FLOOD_COUNT = 128
#: A process may grow by so much under that flood.
_FLOOD_BOUND = 20 * 1024 * 1024
KEYS = ["the key of the site"]


class Forger:
    """Makes envelopes that no node would: the octets, the payload, the sender or the key is wrong.

    Args:
        genuine: Payloads of the layer under attack.
        seal: With other keys than that layer has; None if nothing is sealed.
    """

    def __init__(self, genuine: list[bytes], seal: Seal | None = None) -> None:
        self._chance = random.Random(5)
        self._genuine = genuine
        self._seal = seal
        self._seqs = itertools.count(1)

    def envelopes(self, name: str, kind: Kind, count: int) -> Iterator[Envelope]:
        """So many, for a channel or a group."""
        for number in range(count):
            payload = self._payload()
            envelope = self._envelope(kind, name, payload)
            if number % 3 == 0:
                envelope = _with_octets(envelope, self._octets(envelope.encoded))
            yield envelope

    def controls(self, name: str, count: int) -> Iterator[Envelope]:
        """What one node asks of another, with nonsense in it."""
        kinds = (Kind.ADD, Kind.DISCARD, Kind.DONE, Kind.LATER)
        for _ in range(count):
            yield self._envelope(self._chance.choice(kinds), name, self._noise())

    def both(self, kind: Kind, name: str, payload: bytes) -> list[Envelope]:
        """Such an envelope unsealed, and another sealed with the wrong keys."""
        plain, sealed = (
            Envelope(kind, name, payload, sender=b"forger--", seq=next(self._seqs))
            for _ in range(2)
        )
        return [plain] if self._seal is None else [plain, self._seal.close(sealed)]

    def _envelope(self, kind: Kind, name: str, payload: bytes) -> Envelope:
        envelope = Envelope(kind, name, payload, sender=b"forger--", seq=next(self._seqs))
        if self._seal is None or self._chance.random() < 0.5:
            return envelope
        return self._seal.close(envelope)

    def _payload(self) -> bytes:
        """No message of this layer, whatever it looks like."""
        genuine = self._chance.choice(self._genuine)
        ways: list[Callable[[], bytes]] = [
            self._noise,
            lambda: genuine[: self._chance.randrange(len(genuine))],
            lambda: b"",
            # What is a value, but no message.
            lambda: b"\xc0",
        ]
        if self._seal is not None:
            # Right, but for the seal.
            ways.append(lambda: genuine)
        return self._chance.choice(ways)()

    def _octets(self, encoded: bytes) -> bytes:
        """No envelope: noise, a part of one, or one of another version."""
        cut = encoded[: self._chance.randrange(29)]
        return self._chance.choice([b"\xff" + self._noise(), cut, b"\x09" + encoded[1:]])

    def _noise(self) -> bytes:
        # 0xc1 is never used in MessagePack, and no JSON either.
        return b"\xc1" + self._chance.randbytes(self._chance.randrange(200))


def _keyed(keys: list[str] | None) -> dict[str, Any]:
    """CONFIG with these keys."""
    if keys is None:
        return {}
    pytest.importorskip("cryptography")
    return {"symmetric_encryption_keys": keys, "send_timeout": 20.0}


def _sealed(layer: Any, kind: Kind, name: str) -> Envelope:
    """An envelope as a node of this layer makes it."""
    payload, deadline = layer.node.codec.encode({"type": "sealed"}), int(time.time() + 60) * 1000
    envelope: Envelope = layer.node.seal.close(
        Envelope(kind, name, payload, new_sender(), seq=1, deadline=deadline)
    )
    return envelope


def _disguised(envelope: Envelope, **changes: Any) -> Envelope:
    """What somebody makes of it who has no key."""
    fields = ("kind", "name", "payload", "sender", "seq", "deadline")
    values = {field: getattr(envelope, field) for field in fields} | changes
    return Envelope(**values).sealed(envelope.payload)


def _push(push: Callable[..., Any], queue: str, envelope: Envelope) -> Any:
    return push(queue, envelope, 1000)


def _forged(layer: Any) -> int:
    """How much was dropped because no node of this layer has made it so."""
    counts = layer.statistics()
    return int(counts.get("dropped_malformed", 0) + counts.get("dropped_unauthentic", 0))


def _with_octets(envelope: Envelope, octets: bytes) -> Envelope:
    envelope._encoded = octets
    return envelope


class HostileCases(ConformanceBase):
    """Forged, repeated and damaged messages are counted and dropped; floods meet a bound."""

    #: Forged envelopes for a group; a tenth of them for a queue.
    forgeries: ClassVar[int] = 1000

    async def _fling(self, layer: Any, way: Callable[[Envelope], Any], some: Any) -> None:
        """Give envelopes to the transport as if a node had made them."""

        async def one(envelope: Envelope) -> None:
            # A transport that reads what it carries may refuse it.
            with contextlib.suppress(ChannelsError):
                await layer.node.link.do(len(envelope.payload), partial(way, envelope))

        while batch := list(itertools.islice(some, _AT_A_TIME)):
            await asyncio.gather(*map(one, batch))

    @pytest.mark.parametrize("keys", [None, KEYS], ids=["open", "sealed"])
    async def test_forged_messages_are_counted_and_dropped(
        self, make_layer: MakeLayer, keys: list[str] | None
    ) -> None:
        self.need("node", "carries_bytes")
        config = {"capacity": 10_000, "send_timeout": 20.0} | _keyed(keys)
        first, second = await self.make_two(make_layer, **config)
        messages = [{"type": "x", "number": number, "raw": bytes(50)} for number in range(20)]
        forger = Forger(
            [first.node.codec.encode(message) for message in messages],
            Seal(["another"]) if keys else None,
        )
        channel = await second.new_channel()
        await second.group_add("room", channel)
        transport, capabilities = first.node.transport, first.capabilities
        reader = asyncio.create_task(second.receive("worker"))
        before = _forged(second)
        await self._fling(
            first,
            lambda envelope: transport.publish("room", envelope),
            # A direct transport hands envelopes on as they are: no octets to damage.
            forger.envelopes("room", Kind.GROUP, self.forgeries),
        )
        if not capabilities.is_direct:
            await self._fling(
                first,
                lambda envelope: transport.push_node(second.node.id, envelope),
                forger.controls("room", self.forgeries // 10),
            )
        # What was sent by the same process comes after them.
        await first.group_send("room", {"type": "genuine"})
        assert await soon(second.receive(channel)) == {"type": "genuine"}
        assert _forged(second) - before >= self.forgeries * 0.9, "each is counted"
        if self.features.queues:
            await first.send("worker", {"type": "genuine"})
            assert await soon(reader) == {"type": "genuine"}
        reader.cancel()
        await asyncio.wait([reader])

    async def test_forged_messages_in_a_queue_cost_its_reader_nothing(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node", "queues", "carries_bytes")
        first, second = await self.make_two(make_layer, capacity=100_000, send_timeout=20.0)
        forger = Forger([first.node.codec.encode({"type": "x", "raw": bytes(50)})])
        reader = asyncio.create_task(second.receive("worker"))
        forged = [
            envelope
            for envelope in forger.envelopes("worker", Kind.CHANNEL, self.forgeries // 10)
            # Some backends look into what they queue; these are for those that do not.
            if envelope.encoded[:1] == b"\x01" and len(envelope.encoded) > 29
        ]
        push = first.node.transport.push
        await self._fling(first, lambda envelope: push("worker", envelope, 100_000), iter(forged))
        await first.send("worker", {"type": "genuine"})
        assert await soon(reader) == {"type": "genuine"}
        assert second.statistics()["dropped_malformed"] >= len(forged)

    @pytest.mark.parametrize("keys", [None, KEYS], ids=["open", "sealed"])
    async def test_what_is_longer_than_any_message_is_counted_and_dropped(
        self, make_layer: MakeLayer, keys: list[str] | None
    ) -> None:
        self.need("node", "carries_bytes")
        first, second = await self.make_two(make_layer, max_message_bytes=2048, **_keyed(keys))
        channel = await second.new_channel()
        await second.group_add("room", channel)
        node = first.node
        # A message of this layer in all but its length.
        payload = MsgpackSerializer().dumps({"type": "x", "pad": "x" * 6000})
        queue = ["worker"] if self.features.queues else []
        for name, kind in [("room", Kind.GROUP), *((each, Kind.CHANNEL) for each in queue)]:
            envelope = Envelope(kind, name, payload, new_sender(), seq=1)
            if node.seal is not None:
                envelope = node.seal.close(envelope)
            way = partial(_push, node.transport.push, name)
            if kind is Kind.GROUP:
                way = partial(node.transport.publish, name)
            await self._fling(first, way, iter([envelope]))
        await first.group_send("room", {"type": "genuine"})
        assert await soon(second.receive(channel)) == {"type": "genuine"}
        for name in queue:
            await first.send(name, {"type": "genuine"})
            assert await soon(second.receive(name)) == {"type": "genuine"}
        assert _forged(second) == 1 + len(queue)

    async def test_another_version_in_a_queue_is_counted_and_dropped(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node", "queues")
        first, second = await self.make_two(make_layer, **_keyed(KEYS))
        if first.capabilities.is_direct:
            pytest.skip("a direct transport hands envelopes on as they are")
        future = [_sealed(first, Kind.CHANNEL, "worker") for _ in range(5)]
        for envelope in future:
            _with_octets(envelope, b"\x63" + envelope.encoded[1:])
        await self._fling(first, partial(_push, first.node.transport.push, "worker"), iter(future))
        await first.send("worker", {"type": "genuine"})
        assert await soon(second.receive("worker")) == {"type": "genuine"}
        # Where the backend is one of the processes, it may be the one that looks into them.
        counts = [*first.statistics().items(), *second.statistics().items()]
        dropped = sum(count for name, count in counts if name.endswith("dropped_malformed"))
        assert dropped >= len(future)

    async def test_what_comes_twice_is_delivered_once(self, make_layer: MakeLayer) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer, capacity=10_000, send_timeout=20.0)
        if first.capabilities.is_direct:
            pytest.skip("a direct transport carries nothing that could come twice")
        channel = await second.new_channel()
        await second.group_add("room", channel)
        payload = first.node.codec.encode({"type": "once"})
        sent = [
            Envelope(Kind.GROUP, "room", payload, sender=b"replayer", seq=seq) for seq in range(50)
        ]
        publish = first.node.transport.publish
        for again in (sent, sent, sent[:1]):
            await self._fling(first, lambda envelope: publish("room", envelope), iter(again))
        await first.group_send("room", {"type": "last"})
        got = []
        while (message := await soon(second.receive(channel))) != {"type": "last"}:
            got.append(message)
        assert got == [{"type": "once"}] * len(sent)

    @pytest.mark.parametrize("keys", [None, KEYS], ids=["open", "sealed"])
    async def test_forged_control_entries_are_obeyed_only_without_keys(
        self, make_layer: MakeLayer, keys: list[str] | None
    ) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer, **_keyed(keys))
        if first.capabilities.is_direct:
            pytest.skip("nodes of a direct transport ask nothing of each other")
        member, outsider = await second.new_channel(), await second.new_channel()
        await second.group_add("room", member)
        await first.new_channel()
        groups, payload = second.node.local.hub.groups, first.node.codec.encode({"type": "forged"})
        intruder = Forger([], Seal(["another"]) if keys else None)
        forged = [
            *intruder.both(Kind.ADD, "room", pack_question(1, first.node.id, outsider)),
            *intruder.both(Kind.LATER, member, pack_later(0.0, payload)),
            *intruder.both(Kind.DISCARD, "room", pack_question(2, first.node.id, member)),
        ]
        flush = intruder.both(Kind.FLUSH, ALL_NODES, b"")
        push_node = first.node.transport.push_node
        await self._fling(first, lambda envelope: push_node(second.node.id, envelope), iter(forged))
        if keys is None:
            await until(lambda: set(groups["room"].members) == {outsider}, "the forger's wish")
            assert await soon(second.receive(member)) == {"type": "forged"}
        await self._fling(first, lambda envelope: push_node(second.node.id, envelope), iter(flush))
        if keys is None:
            await until(lambda: "room" not in groups, "the forged flush")
            return
        await until(lambda: _forged(second) == len(forged) + len(flush), "each to be counted")
        assert set(groups["room"].members) == {member}
        await first.group_send("room", {"type": "genuine"})
        assert await soon(second.receive(member)) == {"type": "genuine"}

    async def test_a_sealed_message_opens_only_where_it_was_sent(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node")
        first, second = await self.make_two(make_layer, **_keyed(KEYS))
        if first.capabilities.is_direct:
            pytest.skip("a direct transport carries nothing that could be moved")
        here, there = await second.new_channel(), await second.new_channel()
        await second.group_add("here", here)
        await second.group_add("there", there)
        group, own = _sealed(first, Kind.GROUP, "here"), _sealed(first, Kind.CHANNEL, here)

        def moved(sent: Kind, to: str, **changes: Any) -> Envelope:
            # A new one each time: some backends drop by themselves what has come before.
            return _disguised(_sealed(first, sent, to), **changes)

        to_node = [
            moved(Kind.GROUP, "here", name="there"),
            moved(Kind.GROUP, "here", kind=Kind.CHANNEL, name=there),
            moved(Kind.GROUP, "here", kind=Kind.LATER, name=there),
            moved(Kind.GROUP, "here", kind=Kind.ADD, name="there"),
            moved(Kind.CHANNEL, here, name=there),
            moved(Kind.CHANNEL, here, kind=Kind.GROUP, name="there"),
            # New to those that have seen it, or good for ever.
            moved(Kind.GROUP, "here", seq=2),
            moved(Kind.GROUP, "here", sender=b"somebody"),
            moved(Kind.GROUP, "here", deadline=0),
        ]
        to_group = [moved(Kind.GROUP, "here", name="there")]
        transport = first.node.transport
        push_node = partial(transport.push_node, second.node.id)
        await self._fling(first, push_node, iter(to_node))
        await self._fling(first, partial(transport.publish, "there"), iter(to_group))
        # Whole, wherever it is put, it reaches its own group once.
        await self._fling(first, partial(transport.publish, "here"), iter([group]))
        await self._fling(first, partial(transport.publish, "there"), iter([group]))
        await self._fling(first, push_node, iter([group, own]))
        for name in ("here", "there"):
            await first.group_send(name, {"type": "last"})
        got = [await soon(second.receive(here)) for _ in range(3)]
        assert got.count({"type": "sealed"}) == 2, "the group's once, and the channel's"
        assert await soon(second.receive(there)) == {"type": "last"}
        assert second.statistics()["dropped_unauthentic"] == len(to_node) + len(to_group)

    async def test_a_sealed_message_of_one_queue_opens_in_no_other(
        self, make_layer: MakeLayer
    ) -> None:
        self.need("node", "queues")
        channels = ["worker", "jobs"] if self.features.leases else ["worker"]
        delivery = {"delivery": {"jobs": "at-least-once"}} if self.features.leases else {}
        first, second = await self.make_two(make_layer, **_keyed(KEYS), **delivery)
        own = await second.new_channel()
        push = first.node.transport.push
        for channel in channels:
            vault, private = (_sealed(first, Kind.CHANNEL, name) for name in ("vault", own))
            moved = [
                vault,
                private,
                _disguised(vault, name=channel, seq=vault.seq + 1),
                _disguised(vault, name=channel, kind=Kind.GROUP, seq=vault.seq + 2),
            ]
            before = second.statistics().get("dropped_unauthentic", 0)
            await self._fling(first, partial(_push, push, channel), iter(moved))
            await first.send(channel, {"type": "genuine"})
            if channel == "jobs":
                message, lease = await soon(second.receive_leased(channel))
                await lease.ack()
            else:
                message = await soon(second.receive(channel))
            assert message == {"type": "genuine"}
            assert second.statistics()["dropped_unauthentic"] - before == len(moved)

    async def test_a_flood_that_nobody_reads_meets_a_bound(self, make_layer: MakeLayer) -> None:
        self.need("exact_capacity")
        if not sys.platform.startswith("linux"):
            pytest.skip("reads /proc")
        patience = {"send_timeout": 20.0} if self.features.node else {}
        first, second = await self.make_two(make_layer, capacity=10, **patience)
        lazy, busy = await second.new_channel(), await second.new_channel()
        for channel in (lazy, busy):
            await second.group_add("room", channel)
        message = {"type": "x", "text": "x" * _FLOOD_TEXT}
        # Buffers and pools that stay belong to the layer at work, not to the flood.
        await self._flood(first, second, lazy, busy, message, 32)
        before = resident_bytes()
        refused = await self._flood(first, second, lazy, busy, message, _FLOOD_COUNT)
        assert refused > 0, "one of the two must have been full"
        assert resident_bytes() - before < _FLOOD_BOUND

    async def _flood(
        self, first: Any, second: Any, lazy: str, busy: str, message: Any, count: int
    ) -> int:
        refused = 0
        for number in range(count):
            await first.group_send("room", message)
            for channel in [lazy] + (["worker"] if self.features.queues else []):
                try:
                    await first.send(channel, message)
                except ChannelFull:
                    refused += 1
            if number % 5 == 4:
                for _ in range(5):
                    await soon(second.receive(busy))
        return refused


def resident_bytes() -> int:
    """What this process has in memory now."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
