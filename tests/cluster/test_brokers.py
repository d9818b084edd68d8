"""What every layer with a server promises while processes, connections and brokers die.

Each case runs over all rows of `sites.BROKERS` whose promise covers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from channels.exceptions import ChannelLayerUnavailable
from tests.cluster.history import Outcome, PublisherLog, Verdict, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.proxy import ChaosProxy
from tests.cluster.sites import BROKERS, Restart, Site
from tests.cluster.traffic import Breaker, Reader, every, is_connected, publish, quiet, until

MakeLayer = Callable[..., Any]
#: Cutting connections over a database takes 44 s on a quiet machine.
pytestmark = pytest.mark.timeout(180)


def over(names: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("site", list(names), indirect=True)


WITH_WINDOW = [name for name, row in BROKERS.items() if row.has_window]
WITHOUT_WINDOW = [name for name, row in BROKERS.items() if not row.has_window]
RESTARTS = [
    pytest.param(name, restart, id="-".join([name, *restart.options]))
    for name, row in BROKERS.items()
    for restart in row.restarts
]


def is_without_mistake(verdict: Verdict) -> bool:
    """Nothing but a loss, at most."""
    return not (verdict.doubled or verdict.reordered or verdict.strange)


def process(site: Site, role: str, name: str, port: int | None = None) -> Member:
    """A process of its own that reads a channel or a group."""
    config = site.config(port, capacity=20_000)
    return Member(site.backend, config, role, name, site.databases(port))


# Processes.


@over(BROKERS)
async def test_three_processes_on_one_channel_get_each_message_once(
    site: Site, make_layer: MakeLayer
) -> None:
    layer, log, count = make_layer(), PublisherLog("p"), site.row.many
    async with (
        process(site, "queue", "work") as first,
        process(site, "queue", "work") as second,
        process(site, "queue", "work") as third,
    ):
        await publish(layer, log, count, channel="work")
        readers = {"1": first.marks, "2": second.marks, "3": third.marks}
        await until(lambda: sum(map(len, readers.values())) >= count, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert verdict.is_clean, verdict
    assert all(len(marks) > count // 12 for marks in readers.values()), "the work is shared"


@over(BROKERS)
async def test_a_killed_worker_loses_nothing_that_comes_later(
    site: Site, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(), PublisherLog("p")
    async with process(site, "queue", "work") as dying:
        await publish(layer, log, 1, channel="work")
        await until(lambda: len(dying.marks) == 1, "the first")
        dying.kill()
    async with Reader(layer, channel="work") as reader:
        await publish(layer, log, 100, channel="work")
        await until(lambda: len(reader.marks) >= 100, "the others")
    assert judge_queue([log], {"dead": dying.marks, "alive": reader.marks}).is_clean


# Connections.


@over(WITH_WINDOW)
async def test_connections_that_break_all_the_time_lose_nothing_of_a_group(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    breaker = Breaker(site, proxy)
    near, far = make_layer(breaker.port), make_layer(breaker.port)
    logs = [PublisherLog("near"), PublisherLog("far")]
    async with (
        Reader(near, group="room") as first,
        Reader(far, group="room") as second,
        process(site, "group", "room", breaker.port) as third,
    ):
        flow: Any = {"group": "room", "pause": every(20, 0.02), "enough": breaker.is_enough}
        async with breaker.cutting(near, far):
            await asyncio.gather(
                publish(near, logs[0], site.row.many, **flow),
                publish(far, logs[1], site.row.many, **flow),
            )
        readers = {"near": first.marks, "far": second.marks, "process": third.marks}
        count = sum(len(log.outcomes) for log in logs)
        await until(lambda: min(map(len, readers.values())) >= count, "all messages", 30)
        await quiet(list(readers.values()), 0.2)
    verdict = judge_group(logs, readers)
    assert verdict.is_clean, verdict
    if site.row.has_one_order:
        assert first.marks == second.marks == third.marks, "one order for all"
    for layer in (near, far):
        counts = layer.statistics()
        assert counts["disconnected"] >= 5
        assert (counts["given_up"], counts.get("gaps", 0)) == (0, 0)


@over(WITHOUT_WINDOW)
async def test_connections_that_break_all_the_time_lose_only_what_is_told(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    sender, far, near = make_layer(proxy.port), make_layer(proxy.port), make_layer()
    log, calm = PublisherLog("p"), PublisherLog("calm")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    breaker = Breaker(site, proxy, by_proxy=True)
    async with (
        Reader(near, group="room") as whole,
        process(site, "group", "room") as other,
        Reader(far, group="room") as reader,
    ):
        async with breaker.cutting(sender, far):
            await publish(
                *(sender, log, site.row.many),
                group="room",
                pause=every(20, 0.02),
                enough=breaker.is_enough,
            )
        told = list(gaps)
        await until(lambda: is_connected(sender) and is_connected(far), "the connections")
        # From here on nothing breaks, so nothing may be lost.
        await publish(sender, calm, 100, group="room")
        last = [("calm", 99)]
        await until(lambda: whole.marks[-1:] == other.marks[-1:] == last, "those that stayed")
        await quiet([reader.marks], 0.3)
    stayed = judge_group([log, calm], {"near": whole.marks, "process": other.marks})
    assert stayed.is_clean, f"a sender loses nothing: {stayed}"
    verdict = judge_group([log], {"far": [mark for mark in reader.marks if mark[0] == "p"]})
    assert is_without_mistake(verdict), verdict
    assert len(verdict.lost) < len(log.outcomes) / 2, f"reconnecting takes milliseconds: {verdict}"
    assert judge_group([calm], {"far": [m for m in reader.marks if m[0] == "calm"]}).is_clean
    assert len(told) >= 3
    assert set(told) == {None}


@over(BROKERS)
async def test_connections_that_break_all_the_time_double_nothing_of_a_queue(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    breaker, log = Breaker(site, proxy), PublisherLog("p")
    sender, *workers = (make_layer(breaker.port) for _ in range(3))
    async with (
        Reader(workers[0], channel="work") as first,
        Reader(workers[1], channel="work") as second,
    ):
        async with breaker.cutting(sender, *workers):
            await publish(
                *(sender, log, site.row.many),
                channel="work",
                pause=every(20, 0.02),
                enough=breaker.is_enough,
            )
        readers = {"1": first.marks, "2": second.marks}
        count = len(log.outcomes)
        await until(lambda: sum(map(len, readers.values())) >= count, "all messages", 30)
        await quiet(list(readers.values()))
    verdict = judge_queue([log], readers)
    assert [verdict.lost, verdict.strange] == [[], []], verdict
    if site.row.queue_once:
        assert not verdict.doubled, verdict
    for layer in (sender, *workers):
        assert layer.statistics()["disconnected"] >= 3


@over(WITH_WINDOW)
async def test_a_process_that_was_away_gets_what_was_sent_meanwhile(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    direct, away = make_layer(), make_layer(proxy.port)
    log, gaps = PublisherLog("p"), list[Any]()
    away.add_gap_listener(gaps.append)
    async with Reader(away, group="room") as reader:
        channel = await away.new_channel()
        proxy.refuse()
        proxy.cut()
        await until(lambda: not is_connected(away), "the break")
        await publish(direct, log, 100, group="room")
        await direct.send(channel, {"type": "direct"})
        await proxy.accept()
        await until(lambda: len(reader.marks) >= 100, "what waited")
        async with asyncio.timeout(10):
            assert await away.receive(channel) == {"type": "direct"}
    assert judge_group([log], {"away": reader.marks}).is_clean
    assert gaps == []


@pytest.mark.parametrize("fault", ["swallow", "stall"])
@over(list(BROKERS))
async def test_a_connection_that_is_silently_dead_is_found_out(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer, fault: str
) -> None:
    direct, layer, log = make_layer(), make_layer(proxy.port, **site.row.quick), PublisherLog("p")
    async with Reader(layer, group="room") as reader, Reader(direct, group="room") as other:
        await publish(layer, log, 10, group="room")
        await until(lambda: len(reader.marks) >= 10, "the first")
        getattr(proxy, fault)()
        await until(lambda: layer.statistics().get("disconnected", 0) > 0, "the discovery")
        await publish(direct, log, 10, group="room")
        proxy.heal()
        proxy.cut()
        await until(lambda: is_connected(layer), "the connection")
        if site.row.has_window:
            await until(lambda: len(reader.marks) >= 20, "what was sent meanwhile")
        for sender in (layer, direct):
            await publish(sender, log, 5, group="room")
        await until(lambda: reader.marks[-1:] == other.marks[-1:] == [("p", 29)], "the last")
    assert judge_group([log], {"near": other.marks}).is_clean
    verdict = judge_group([log], {"far": reader.marks})
    assert is_without_mistake(verdict), verdict
    missed = set() if site.row.has_window else {("p", number) for number in range(10, 20)}
    assert {mark for _, mark in verdict.lost} <= missed


# The broker.


@over(list(BROKERS))
async def test_a_broker_that_hangs_for_a_moment_loses_nothing(
    site: Site, make_layer: MakeLayer
) -> None:
    layer, log = make_layer(), PublisherLog("p")

    async def pause_once() -> None:
        await until(lambda: len(log.outcomes) > 30, "traffic")
        await asyncio.to_thread(site.server.pause)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(site.server.resume)

    async with Reader(layer, group="room") as reader:
        await asyncio.gather(
            publish(layer, log, 100, group="room", pause=every(10, 0.002)), pause_once()
        )
        await until(lambda: len(reader.marks) == 100, "all")
    assert judge_group([log], {"r": reader.marks}).is_clean
    assert "disconnected" not in layer.statistics()


@over(list(BROKERS))
async def test_a_broker_that_is_not_there_at_first(site: Site, make_layer: MakeLayer) -> None:
    await asyncio.to_thread(site.server.kill)
    layer = make_layer(send_timeout=0.2)
    worker = asyncio.create_task(layer.receive("work"))
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for sending in (layer.group_send("room", {"type": "x"}), layer.send("work", {"type": "x"})):
        with pytest.raises(ChannelLayerUnavailable, match="send_timeout"):
            await sending
    assert not worker.done()
    await asyncio.to_thread(site.server.start)
    await until(lambda: is_connected(layer), "the connection", 30)
    layer.node.link.outbox.send_timeout = 30.0
    await layer.group_send("room", {"type": "y"})
    await layer.send("work", {"type": "z"})
    async with asyncio.timeout(10):
        assert await layer.receive(channel) == {"type": "y"}
        assert await worker == {"type": "z"}


@pytest.mark.parametrize(("site", "restart"), RESTARTS, indirect=["site"])
async def test_a_broker_killed_and_started_again_loses_only_what_lay_unread(
    site: Site, make_layer: MakeLayer, restart: Restart
) -> None:
    near, far = make_layer(**restart.options), make_layer(**restart.options)
    log, work = PublisherLog("p"), PublisherLog("w")
    gaps: list[Any] = []
    far.add_gap_listener(gaps.append)
    unread, count = 0, site.row.many

    async def kill_and_restart() -> None:
        nonlocal unread
        await until(lambda: len(log.outcomes) > count // 3, "traffic")
        # It holds up this process, too, so that nothing is sent or read meanwhile.
        site.server.kill()
        unread = len(log.outcomes) - min(len(first.marks), len(second.marks))
        await asyncio.to_thread(site.server.start)

    await publish(near, work, 20, channel="work")
    async with Reader(near, group="room") as first, Reader(far, group="room") as second:
        await asyncio.gather(
            publish(near, log, count, group="room", pause=every(10, 0.01)), kill_and_restart()
        )
        await until(lambda: second.marks[-1:] == [("p", count - 1)], "the last")
        await quiet([first.marks, second.marks], 0.2)
    assert not log.marks(Outcome.UNKNOWN), "no send has failed"
    verdict = judge_group([log], {"near": first.marks, "far": second.marks})
    assert is_without_mistake(verdict), verdict
    if restart.keeps_groups:
        assert not verdict.lost, verdict
        assert gaps == []
    else:
        bounded = {"near", "far"} if site.row.loses_only_unread else {"near"}
        lost = [mark for reader, mark in verdict.lost if reader in bounded]
        assert len(lost) <= 2 * unread, f"{verdict}; {unread} lay unread"
        assert gaps == [None]
    await publish(near, work, 1, channel="work")
    async with Reader(far, channel="work") as worker:
        await until(lambda: worker.marks[-1:] == [("w", 20)], "what was sent last")
    if restart.keeps_queues:
        assert judge_queue([work], {"": worker.marks}).is_clean
    else:
        assert worker.marks == [("w", 20)]


# Bounds.


@dataclass(frozen=True)
class Flood:
    """How a process's unread messages are bounded.

    Attributes:
        fault: What the proxy does to the process.
        counter: What its sender counts.
        gaps: What the process is told.
    """

    fault: Callable[[ChaosProxy], None]
    counter: str
    gaps: list[Any] = field(default_factory=list)


def cut_off(proxy: ChaosProxy) -> None:
    proxy.refuse()
    proxy.cut()


FLOODS = {
    "redis": Flood(ChaosProxy.stall, "transport_inboxes_full", [["room"]]),
    "rabbitmq": Flood(cut_off, "transport_group_sends_with_full_inbox"),
}


@over(list(FLOODS))
async def test_a_flood_for_a_process_that_does_not_read_is_bounded_and_counted(
    site: Site, proxy: ChaosProxy, make_layer: MakeLayer
) -> None:
    flood, sender = FLOODS[site.name], make_layer(node_capacity=100)
    slow = make_layer(proxy.port, node_capacity=100, **site.row.quick)
    gaps: list[Any] = []
    slow.add_gap_listener(gaps.append)
    channel = await slow.new_channel()
    await slow.group_add("room", channel)
    flood.fault(proxy)
    if flood.fault is cut_off:
        await until(lambda: not is_connected(slow), "the break")
    for number in range(400):
        await sender.group_send("room", {"type": "x", "number": number})
    assert sender.statistics()[flood.counter] == 300
    proxy.heal()
    await proxy.accept()
    async with asyncio.timeout(10):
        got = [(await slow.receive(channel))["number"] for _ in range(100)]
    assert got == list(range(100))
    await until(lambda: gaps == flood.gaps, "the notice")
