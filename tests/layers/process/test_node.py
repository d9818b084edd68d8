"""A node through failures of its transport: what is lost, doubled, reordered, and said."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.layers.envelope import Envelope, Kind
from channels.layers.names import ALL_NODES
from channels.layers.process.control import pack_question
from channels.testing.layers.base import nothing_comes, receive_all, soon, until
from tests.layers.loopback import LoopbackBroker, LoopbackChannelLayer

Make = Callable[..., LoopbackChannelLayer]


@pytest.fixture
def broker() -> LoopbackBroker:
    return LoopbackBroker()


@pytest_asyncio.fixture
async def make(broker: LoopbackBroker) -> AsyncIterator[Make]:
    """Makes layers on one broker whose connections live on the test's loop."""
    made = []

    def make_layer(**config: Any) -> LoopbackChannelLayer:
        layer = LoopbackChannelLayer(broker, **config)
        assert layer.adopt_loop()
        made.append(layer)
        return layer

    yield make_layer
    broker.is_reachable = True
    for layer in made:
        await layer.close()


def envelope(seq: int, *, name: str = "room", kind: Kind = Kind.GROUP, **fields: Any) -> Envelope:
    payload = fields.pop("payload", b"\x81\xa4type\xa1x")
    return Envelope(kind, name, payload, sender=b"somebody", seq=seq, **fields)


async def member(layer: LoopbackChannelLayer, group: str = "room") -> str:
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    return channel


async def test_nothing_is_lost_doubled_or_reordered_while_connections_break(make: Make) -> None:
    sender, receiver = make(capacity=1000), make(capacity=1000)
    channel = await member(receiver)
    chance = random.Random(3)

    async def break_things() -> None:
        while True:
            for layer in (sender, receiver):
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    # Carried out, but the sender does not hear of it: it will send again.
                    layer.transport.lose_answers = chance.randrange(1, 4)
                    for _ in range(10):
                        await asyncio.sleep(0)
                    layer.transport.lose_answers = 0
                layer.transport.cut()
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                layer.transport.restore()

    breaking = asyncio.create_task(break_things())
    for number in range(300):
        await sender.group_send("room", {"type": "x", "number": number})
        await sender.send(channel, {"type": "x", "number": number + 0.5})
        await sender.send("worker", {"type": "x", "number": number})
    breaking.cancel()
    await asyncio.wait([breaking])
    for layer in (sender, receiver):
        layer.transport.lose_answers = 0
        layer.transport.restore()
    got = [message["number"] for message in await receive_all(receiver, channel, 600)]
    assert got == [number / 2 for number in range(600)]
    queued = [message["number"] for message in await receive_all(receiver, "worker", 300)]
    assert queued == list(range(300))
    await nothing_comes(receiver, channel, 0.05)
    assert sender.statistics()["replayed"] > 0
    assert receiver.statistics()["dropped_repeated"] > 0


async def test_concurrent_sends_keep_their_order_through_a_break(make: Make) -> None:
    layer = make(capacity=1000)
    channel = await member(layer)
    sends = [
        asyncio.create_task(layer.group_send("room", {"type": "x", "number": number}))
        for number in range(200)
    ]
    await asyncio.sleep(0)
    # All have been carried out, and nobody has heard of it.
    layer.transport.cut()
    await asyncio.sleep(0.01)
    assert len(layer.node.link.outbox) == 200
    layer.transport.restore()
    await asyncio.gather(*sends)
    got = [message["number"] for message in await receive_all(layer, channel, 200)]
    assert got == list(range(200))


async def test_broker_down_at_the_start(make: Make, broker: LoopbackBroker) -> None:
    broker.is_reachable = False
    layer = make(send_timeout=0.05)
    channel = await layer.new_channel()
    with pytest.raises(ChannelLayerUnavailable, match=r"send_timeout=0\.05"):
        await layer.group_send("room", {"type": "lost"})
    with pytest.raises(ChannelLayerUnavailable):
        await layer.send("worker", {"type": "lost"})
    # No error in a consumer: the membership waits for the broker.
    await layer.group_add("room", channel)
    assert layer.statistics()["joined_late"] == 1
    reader = asyncio.create_task(layer.receive("worker"))
    await asyncio.sleep(0.1)
    assert not reader.done()
    broker.is_reachable = True
    layer.transport.restore(kept=False)
    await layer.group_send("room", {"type": "found"})
    assert await soon(layer.receive(channel)) == {"type": "found"}
    await layer.send("worker", {"type": "work"})
    assert await soon(reader) == {"type": "work"}


async def test_a_send_waits_for_the_connection_to_come_back(make: Make) -> None:
    layer = make()
    channel = await member(layer)
    layer.transport.cut()
    sending = asyncio.create_task(layer.group_send("room", {"type": "x"}))
    await asyncio.sleep(0.02)
    assert not sending.done()
    assert layer.statistics()["waiting_to_send"] == 1
    layer.transport.restore()
    await soon(sending)
    assert await soon(layer.receive(channel)) == {"type": "x"}


async def test_a_cancelled_send_is_not_sent_later(make: Make) -> None:
    layer = make()
    channel = await member(layer)
    layer.transport.cut()
    sending = asyncio.create_task(layer.group_send("room", {"type": "withdrawn"}))
    await asyncio.sleep(0.02)
    sending.cancel()
    await asyncio.wait([sending])
    layer.transport.restore()
    await layer.group_send("room", {"type": "sent"})
    assert await soon(layer.receive(channel)) == {"type": "sent"}


async def test_what_waits_is_bounded(make: Make) -> None:
    layer = make(replay_messages=2, replay_bytes=2048)
    await layer.new_channel()
    layer.transport.cut()
    sends = [asyncio.create_task(layer.send("worker", {"type": "x"})) for _ in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(ChannelLayerUnavailable, match="replay_messages=2"):
        await layer.send("worker", {"type": "x"})
    layer.transport.restore()
    await asyncio.gather(*sends)
    layer.transport.cut()
    with pytest.raises(ChannelLayerUnavailable, match="replay_bytes=2048"):
        await layer.send("worker", {"type": "x", "text": "x" * 3000})


async def test_lost_memberships_are_renewed_and_the_gap_is_told(make: Make) -> None:
    layer, other = make(), make()
    gaps: list[Any] = []
    layer.add_gap_listener(gaps.append)
    channel = await member(layer)
    layer.transport.cut()
    layer.transport.restore(kept=True)
    await other.group_send("room", {"type": "kept"})
    assert await soon(layer.receive(channel)) == {"type": "kept"}
    assert gaps == []
    layer.transport.cut()
    layer.transport.restore(kept=False)
    await until(lambda: gaps == [None], "the gap")
    await other.group_send("room", {"type": "again"})
    assert await soon(layer.receive(channel)) == {"type": "again"}


async def test_an_outage_is_logged_once_each_way(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make()
    await layer.new_channel()
    layer.transport.cut()
    layer.node.on_down(ConnectionError("still"))
    layer.node.on_down(ConnectionError("still"))
    layer.transport.restore()
    texts = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in texts if "out of reach" in text]) == 1
    assert texts[-1] == "The channel layer is connected"


async def test_members_that_come_and_go_do_not_reach_the_broker(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make(linger=60)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    joins = broker.calls["join"]
    for _ in range(20):
        await layer.group_discard("room", channel)
        await layer.group_add("room", channel)
    assert broker.calls["join"] == joins
    assert broker.calls["leave"] == 0


async def test_a_send_does_not_overtake_a_group_send_to_a_group_that_lingers(make: Make) -> None:
    layer = make(linger=60)
    former = await member(layer)
    await layer.group_discard("room", former)
    subscriptions = layer.node.link.subscriptions
    await until(lambda: "room" in subscriptions._timers, "the group to linger")
    # Added as by another thread, whose look at the group came before the last member's leaving.
    channel = await layer.new_channel()
    layer.node.local.add("room", channel)
    layer.transport.delays = True
    await layer.group_send("room", {"type": "first"})
    await layer.send(channel, {"type": "second"})
    layer.transport.let_go()
    assert await receive_all(layer, channel, 2) == [{"type": "first"}, {"type": "second"}]


async def test_a_group_is_left_when_it_has_stayed_empty(make: Make, broker: LoopbackBroker) -> None:
    layer = make(linger=0.01)
    channel = await member(layer)
    assert layer.node.id in broker.groups["room"]
    await layer.group_discard("room", channel)
    await until(lambda: layer.node.id not in broker.groups["room"], "the node to leave")
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "x"})
    assert await soon(layer.receive(channel)) == {"type": "x"}


async def test_a_group_that_is_empty_again_when_it_is_joined_is_left(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make(linger=0.0)
    channel = await layer.new_channel()
    adding = asyncio.create_task(layer.group_add("room", channel))
    await asyncio.sleep(0)
    assert "room" in layer.node.local.hub.groups
    assert "room" not in broker.groups, "it is being joined"
    layer.node.local.discard("room", channel)
    await adding
    await until(lambda: layer.node.id not in broker.groups["room"], "the node to leave")


async def test_many_joins_go_in_few_calls(make: Make, broker: LoopbackBroker) -> None:
    layer = make()
    channel = await layer.new_channel()
    before = broker.calls["join"]
    await asyncio.gather(*(layer.group_add(f"room-{number}", channel) for number in range(1000)))
    assert broker.calls["join"] - before <= 4


async def test_a_send_does_not_overtake_what_was_published_before(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make()
    channel = await member(layer)
    layer.transport.delays = True
    await asyncio.gather(
        layer.group_send("room", {"type": "first"}), layer.send(channel, {"type": "second"})
    )
    # The group's message has come back, but not yet what followed it.
    layer.transport.events.on_frame(layer.transport.inbox.popleft())
    await layer.send(channel, {"type": "third"})
    assert await soon(layer.receive(channel)) == {"type": "first"}
    await nothing_comes(layer, channel, 0.05)
    layer.transport.let_go()
    # All has come back: what is sent now does not go through the broker.
    await layer.send(channel, {"type": "fourth"})
    got = [message["type"] for message in await receive_all(layer, channel, 3)]
    assert got == ["second", "third", "fourth"]
    assert broker.calls["push_node"] == 2


async def test_a_send_to_an_own_channel_does_not_wait_for_what_was_lost(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make()
    channel = await member(layer)
    layer.transport.delays = True
    await layer.group_send("room", {"type": "lost"})
    layer.transport.cut()
    await layer.send(channel, {"type": "sent"})
    assert await soon(layer.receive(channel)) == {"type": "sent"}
    assert not broker.calls["push_node"]


async def test_an_outage_keeps_nothing_from_the_own_channels_and_doubles_nothing(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make(send_timeout=0.1)
    channel = await member(layer)
    layer.transport.cut()
    failing = asyncio.create_task(layer.group_send("room", {"type": "lost"}))
    await until(lambda: len(layer.node.link.outbox) == 1, "the group's message to wait")
    # It waits behind that, as long as it may.
    await layer.send(channel, {"type": "first"})
    with pytest.raises(ChannelLayerUnavailable):
        await failing
    given_up = layer.statistics()["given_up"]
    await layer.send(channel, {"type": "second"})
    assert layer.statistics()["given_up"] == given_up, "nothing was before it"
    got = [message["type"] for message in await receive_all(layer, channel, 2)]
    assert got == ["first", "second"]
    # Carried out, but not heard of in time: delivered here, and brought by the broker later.
    layer.transport.restore()
    layer.transport.delays = True
    await layer.group_send("room", {"type": "third"})
    layer.transport.lose_answers = 1
    await layer.send(channel, {"type": "fourth"})
    layer.transport.restore()
    layer.transport.let_go()
    got = [message["type"] for message in await receive_all(layer, channel, 2)]
    assert set(got) == {"third", "fourth"}
    await nothing_comes(layer, channel, 0.05)
    assert layer.statistics()["dropped_repeated"] == 1


async def test_a_broker_that_has_forgotten_this_node_keeps_nothing_from_its_own_channels(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make()
    channel = await member(layer)
    layer.transport.delays = True
    await layer.group_send("room", {"type": "lost"})
    broker.forget(layer.node.id)
    await layer.send(channel, {"type": "sent"})
    assert await soon(layer.receive(channel)) == {"type": "sent"}


async def test_repeated_expired_and_foreign_envelopes_are_dropped_and_counted(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make()
    channel = await member(layer)
    frames = layer.transport.events.on_frame
    frames(envelope(1).encoded)
    frames(envelope(1).encoded)
    frames(envelope(2, deadline=1).encoded)
    frames(b"not ours")
    frames(envelope(3, payload=b"\xc1").encoded)
    frames(envelope(4, name="other.n0123456789abcdef!x", kind=Kind.CHANNEL).encoded)
    frames(envelope(5, payload=b"short", kind=Kind.ADD).encoded)
    assert await soon(layer.receive(channel)) == {"type": "x"}
    await nothing_comes(layer, channel, 0.05)
    counts = layer.statistics()
    assert counts["dropped_repeated"] == 1
    assert counts["dropped_expired"] == 1
    assert counts["dropped_gone"] == 1
    assert counts["dropped_malformed"] == 3
    assert "cannot be read" in caplog.text


async def test_what_is_forged_does_not_make_what_is_genuine_look_repeated(make: Make) -> None:
    sender, receiver = (make(symmetric_encryption_keys=["secret"]) for _ in range(2))
    channel = await member(receiver)
    await sender.new_channel()
    frames = receiver.transport.events.on_frame
    identity = sender.node.envelopes.sender
    for seq in (1, 2, 2**63):
        frames(Envelope(Kind.GROUP, "room", b"x", identity, seq).sealed(bytes(40)).encoded)
    for number in range(3):
        # More would be known of it than can be, were it noted.
        frames(Envelope(Kind.GROUP, "room", b"x", bytes(7) + bytes([number]), 1).encoded)
        await sender.group_send("room", {"type": "x", "number": number})
    got = await receive_all(receiver, channel, 3)
    assert [message["number"] for message in got] == [0, 1, 2]
    counts = receiver.statistics()
    assert (counts["dropped_unauthentic"], counts.get("dropped_repeated", 0)) == (6, 0)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["to keys", "from keys"])
async def test_nodes_with_keys_and_without_take_nothing_from_each_other(
    make: Make, caplog: pytest.LogCaptureFixture, is_sealed: bool
) -> None:
    keys = [{}, {"symmetric_encryption_keys": ["secret"]}]
    layers = [make(send_timeout=0.1, **config) for config in keys]
    sender, receiver = layers[is_sealed], layers[not is_sealed]
    channel, other = await member(receiver), await receiver.new_channel()
    await sender.new_channel()
    await sender.send(channel, {"type": "x"})
    await sender.send(channel, {"type": "x"}, delay=0.01)
    await sender.group_send("room", {"type": "x"})
    await sender.group_add("room", other)
    await sender.group_discard("room", channel)
    await sender.flush()
    reader = asyncio.create_task(receiver.receive("work"))
    await sender.send("work", {"type": "x"})
    await until(lambda: receiver.statistics().get("dropped_unauthentic") == 7, "all to be dropped")
    assert set(receiver.node.local.hub.groups["room"].members) == {channel}
    await receiver.group_send("room", {"type": "own"})
    assert await soon(receiver.receive(channel)) == {"type": "own"}
    assert not reader.done()
    reader.cancel()
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1


async def test_control_entries_meet_their_deadline_however_soon_messages_expire(
    make: Make,
) -> None:
    layer, other = make(expiry=0.001), make()
    channel = await layer.new_channel()
    question = pack_question(1, other.node.id, channel)
    layer.transport.events.on_frame(
        envelope(1, payload=question, kind=Kind.ADD, deadline=1).encoded
    )
    assert layer.statistics()["dropped_expired"] == 1
    assert "room" not in layer.node.local.hub.groups
    theirs = await other.new_channel()
    other.transport.delays = True
    adding = asyncio.create_task(layer.group_add("room", theirs))
    await asyncio.sleep(0.01)
    other.transport.let_go()
    await soon(adding)
    assert theirs in other.node.local.hub.groups["room"].members


async def test_an_answer_to_another_node_answers_nothing(make: Make) -> None:
    layer, other = make(send_timeout=0.1), make()
    theirs = await other.new_channel()
    other.transport.delays = True
    adding = asyncio.create_task(layer.group_add("room", theirs))
    await until(lambda: layer.node.control._asked, "the question")
    answer = pack_question(next(iter(layer.node.control._asked)), other.node.id, theirs)
    layer.transport.events.on_frame(
        envelope(1, name=ALL_NODES, payload=answer, kind=Kind.DONE).encoded
    )
    await soon(adding)
    counts = layer.statistics()
    assert (counts["unanswered"], counts["dropped_malformed"]) == (1, 1)


async def test_a_message_for_a_process_that_is_gone_is_counted(make: Make) -> None:
    layer, other = make(), make()
    channel = await other.new_channel()
    await other.close()
    await layer.send(channel, {"type": "x"})
    await layer.group_add("room", channel)
    assert layer.statistics()["dropped_gone"] == 2


async def test_a_message_whose_reader_has_gone_returns_to_its_queue(make: Make) -> None:
    first, second = make(), make()
    for number in range(100):
        reader = asyncio.create_task(first.receive("worker"))
        for _ in range(number % 7 + 1):
            await asyncio.sleep(0)
        await second.send("worker", {"type": "x", "number": number})
        reader.cancel()
        await asyncio.wait([reader])
        if reader.cancelled():
            message = await soon(second.receive("worker"))
        else:
            message = reader.result()
        assert message["number"] == number


async def test_void_messages_in_a_queue_do_not_use_up_its_reader(
    make: Make, broker: LoopbackBroker
) -> None:
    layer = make()
    reader = asyncio.create_task(layer.receive("worker"))
    await until(lambda: "worker" in broker.engine.queues, "the reader")
    broker.engine.push("worker", envelope(1, payload=b"\xc1"), 10)
    broker.engine.push("worker", envelope(2), 10)
    assert await soon(reader) == {"type": "x"}


async def test_capacity_is_enforced_where_the_channel_lives(make: Make) -> None:
    first, second = make(capacity=2), make(capacity=2)
    channel = await second.new_channel()
    for _ in range(3):
        await first.send(channel, {"type": "x"})
    await until(lambda: second.statistics()["dropped_full"] == 1, "the count")
    with pytest.raises(ChannelFull):
        await second.send(channel, {"type": "x"})


async def test_an_unanswered_question_is_given_up(make: Make) -> None:
    layer, other = make(send_timeout=0.05), make()
    channel = await other.new_channel()
    other.transport.cut()
    await layer.group_add("room", channel)
    assert layer.statistics()["unanswered"] == 1


async def test_closing_frees_who_waits_to_send(make: Make) -> None:
    layer = make()
    await layer.new_channel()
    layer.transport.cut()
    sending = asyncio.create_task(layer.group_send("room", {"type": "x"}))
    await asyncio.sleep(0.02)
    await layer.close()
    with pytest.raises(ChannelLayerUnavailable):
        await soon(sending)


async def test_one_who_only_reads_reconnects_a_layer_that_was_closed(make: Make) -> None:
    layer, other = make(), make()
    channel = await layer.new_channel()
    await layer.close()
    assert layer.adopt_loop()
    reading = asyncio.create_task(layer.receive(channel))
    await until(lambda: layer.statistics()["connected"], "the connection")
    await other.send(channel, {"type": "x"})
    assert await soon(reading) == {"type": "x"}


async def test_memberships_that_the_broker_kept_from_a_lost_loop_are_known_again(
    broker: LoopbackBroker,
) -> None:
    layer = LoopbackChannelLayer(broker, linger=0.01)

    async def use(channel: str | None = None) -> str:
        assert layer.adopt_loop()
        if channel is None:
            return await member(layer)
        await layer.group_discard("room", channel)
        await layer.new_channel()
        layer.transport.cut()
        layer.transport.restore(kept=True)
        await until(lambda: layer.node.link.outbox.is_open, "the connection")
        await layer.group_add("room", channel)
        assert "room" in layer.node.link.subscriptions.joined
        await layer.close()
        return channel

    channel = await asyncio.to_thread(lambda: asyncio.run(use()))
    await asyncio.to_thread(lambda: asyncio.run(use(channel)))


async def test_unread_inboxes_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channels.layers.process.local.MAX_UNREAD_INBOXES", 3)
    layer, other = make(), make()
    channels = [await layer.new_channel() for _ in range(4)]
    for channel in channels:
        await other.send(channel, {"type": "x"})
    await until(lambda: layer.statistics()["dropped_full"] == 1, "the count")
    with pytest.raises(ChannelFull):
        await layer.send(channels[3], {"type": "x"})
    assert await soon(layer.receive(channels[0])) == {"type": "x"}
