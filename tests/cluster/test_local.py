"""The local layer over real processes: its hub killed, ended, halted; a reader that does not read.

Who begins is the hub, so each test starts the process that shall be it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from channels.backends.local import connection
from channels.backends.local.place import find_place
from channels.exceptions import ChannelFull, ChannelLayerUnavailable
from channels.layers import LocalChannelLayer
from tests.cluster.history import PublisherLog, judge_group, judge_queue
from tests.cluster.member import Member
from tests.cluster.publisher import Publisher
from tests.cluster.traffic import Reader, publish, quiet, until

BACKEND = "asgi_ipc.IPCChannelLayer"
MakeLayer = Callable[..., LocalChannelLayer]


@pytest.fixture
def config(short_path: Path) -> dict[str, Any]:
    return {"directory": str(short_path), "prefix": "cluster", "capacity": 10_000}


@pytest.fixture
async def make_layer(config: dict[str, Any]) -> AsyncIterator[MakeLayer]:
    made: list[LocalChannelLayer] = []

    def make(**options: Any) -> LocalChannelLayer:
        made.append(LocalChannelLayer(**{**config, **options}))
        return made[-1]

    yield make
    for layer in made:
        await layer.close()


def hub_pid(config: dict[str, Any]) -> int | None:
    return find_place(config["prefix"], config["directory"]).hub_pid()


def bystander(config: dict[str, Any]) -> Member:
    """A process that takes no part, and is the hub once it has started."""
    return Member(BACKEND, config, "group", "bystanders")


async def receive_numbers(layer: Any, channel: str, count: int) -> list[int]:
    async with asyncio.timeout(10):
        return [(await layer.receive(channel))["number"] for _ in range(count)]


@contextlib.asynccontextmanager
async def three_publishers(config: dict[str, Any]) -> AsyncIterator[list[Publisher]]:
    async with contextlib.AsyncExitStack() as stack:
        settings = {"backend": BACKEND, "config": config, "count": 1334, "group": "room"}
        yield [
            await stack.enter_async_context(Publisher(name, **settings)) for name in ("x", "y", "z")
        ]


async def send_while(
    config: dict[str, Any], layer: LocalChannelLayer, happens: Callable[[], None]
) -> None:
    """4,000 group sends from three processes to three; `happens` in the midst of it."""
    async with (
        Member(BACKEND, config, "group", "room") as first,
        Member(BACKEND, config, "group", "room") as second,
        Reader(layer, group="room") as third,
        three_publishers(config) as publishers,
    ):
        readers = {"first": first.marks, "second": second.marks, "third": third.marks}
        sending = asyncio.gather(*(publisher.run() for publisher in publishers))
        await until(lambda: len(third.marks) > 1000, "traffic")
        happens()
        logs = await sending
        await until(lambda: all(len(marks) >= 4002 for marks in readers.values()), "all messages")
        await quiet(list(readers.values()), 0.3)
        # They may be the hub by now.
        await first.end()
        await second.end()
    verdict = judge_group(logs, readers)
    assert verdict.sent == 4002
    assert verdict.is_clean, verdict


async def test_the_hub_is_killed_under_traffic_and_loses_only_what_it_held_unread(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    async with bystander(config) as hub:
        layer = make_layer()
        for number in range(50):
            await layer.send("unread", {"type": "x", "number": number})
        assert hub_pid(config) == hub.pid
        await send_while(config, layer, hub.kill)
    assert hub_pid(config) not in {hub.pid, None}
    # Those fifty, and no other: the first to be read is the first sent afterwards.
    await layer.send("unread", {"type": "x", "number": 50})
    assert await receive_numbers(layer, "unread", 1) == [50]


async def test_the_hub_ends_in_order_under_traffic_and_nothing_is_lost(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    async with bystander(config) as hub:
        layer = make_layer()
        gaps: list[object] = []
        layer.add_gap_listener(gaps.append)
        for number in range(50):
            await layer.send("unread", {"type": "x", "number": number})
        await layer.group_add("workers", "unread-too")
        await send_while(config, layer, lambda: hub.signal(signal.SIGINT))
        assert hub_pid(config) != hub.pid
    assert await receive_numbers(layer, "unread", 50) == list(range(50))
    await layer.group_send("workers", {"type": "x", "number": 1})
    assert await receive_numbers(layer, "unread-too", 1) == [1]
    assert not gaps, "who has missed nothing is not told so"


async def test_what_is_unread_outlives_all_processes(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    first = make_layer()
    for number in range(20):
        await first.send("work", {"type": "x", "number": number})
    await first.close()
    assert await receive_numbers(make_layer(), "work", 20) == list(range(20))


async def test_three_processes_on_one_channel_get_each_message_once(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    layer, log = make_layer(), PublisherLog("p")
    async with (
        Member(BACKEND, config, "queue", "work") as first,
        Member(BACKEND, config, "queue", "work") as second,
        Member(BACKEND, config, "queue", "work") as third,
    ):
        await publish(layer, log, 2000, channel="work")
        readers = {"1": first.marks, "2": second.marks, "3": third.marks}
        await until(lambda: sum(map(len, readers.values())) >= 2000, "all messages")
        await quiet(list(readers.values()), 0.2)
    verdict = judge_queue([log], readers)
    assert verdict.is_clean, verdict
    assert all(len(marks) > 200 for marks in readers.values()), "the work is shared"


async def test_workers_outlive_the_hub_and_get_each_message_once(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    config["capacity"] = 100
    async with bystander(config) as hub:
        layer, log = make_layer(), PublisherLog("p")
        async with (
            Member(BACKEND, config, "queue", "work") as first,
            Member(BACKEND, config, "queue", "work") as second,
        ):
            readers = {"1": first.marks, "2": second.marks}
            sending = asyncio.create_task(publish(layer, log, 2000, channel="work"))
            await until(lambda: len(first.marks) + len(second.marks) > 500, "traffic")
            hub.kill()
            await sending
            await quiet(list(readers.values()), 0.5)
    verdict = judge_queue([log], readers)
    assert not verdict.doubled, verdict
    assert not verdict.reordered, verdict
    assert not verdict.strange, verdict
    # What lay unread, and one on its way to each reader.
    assert len(verdict.lost) <= 102, verdict


async def test_a_process_that_does_not_read_delays_nobody(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    config["peer_buffer"] = 64 * 1024
    layer, log = make_layer(), PublisherLog("p")
    await layer.new_channel()
    async with (
        Member(BACKEND, config, "group", "room") as slow,
        Member(BACKEND, config, "group", "room") as quick,
        Reader(layer, group="room") as here,
    ):
        assert layer.is_hub
        await slow.halt()
        await publish(layer, log, 4000, group="room")
        readers = {"quick": quick.marks, "here": here.marks}
        await until(lambda: all(len(marks) == 4000 for marks in readers.values()), "the others")
        assert judge_group([log], readers).is_clean
        counts = layer.statistics()
        assert counts["transport_hub_dropped_peer_buffer"] > 0
        slow.signal(signal.SIGCONT)
        await until(lambda: len(slow.marks) > 0, "what was kept for it")
        await layer.group_send("room", {"type": "x", "publisher": "p", "number": 5000})
        await until(lambda: ("p", 5000) in slow.marks, "it is back")
        assert len(slow.marks) == len(set(slow.marks))


async def test_a_halted_hub_is_named_and_its_users_wait_no_longer_than_they_said(
    config: dict[str, Any],
    make_layer: MakeLayer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connection, "PING_SECONDS", 0.2)
    caplog.set_level(logging.WARNING, "channels.layers")
    async with bystander(config) as hub:
        layer = make_layer(send_timeout=0.3)
        async with Reader(layer, group="room") as reader:
            await hub.halt()
            with pytest.raises(ChannelLayerUnavailable):
                await layer.group_send("room", {"type": "x", "publisher": "p", "number": 0})
            named = f"process {hub.pid}"
            await until(lambda: named in caplog.text, "the log names it")
            assert hub_pid(config) == hub.pid, "its place cannot be taken"
            hub.signal(signal.SIGCONT)
            await until(lambda: layer.node.link.outbox.is_open, "it is back")
            await layer.group_send("room", {"type": "x", "publisher": "p", "number": 1})
            await until(lambda: ("p", 1) in reader.marks, "it flows again")
            assert len(reader.marks) == len(set(reader.marks))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_flood_that_nobody_reads_stays_within_message_memory(
    config: dict[str, Any], make_layer: MakeLayer
) -> None:
    config.update(message_memory=4 * 1024 * 1024, capacity=1_000_000)
    async with bystander(config) as hub:
        layer = make_layer()
        await layer.send("flood-0", {"type": "x"})
        before, refused = resident_kilobytes(hub.pid), 0
        message = {"type": "x", "text": "x" * 4096}
        for number in range(8000):
            try:
                await layer.send(f"flood-{number % 50}", message)
            except ChannelFull:
                refused += 1
        assert refused > 6000
        assert resident_kilobytes(hub.pid) - before < 16 * 1024, "32 MiB were sent"


def resident_kilobytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
