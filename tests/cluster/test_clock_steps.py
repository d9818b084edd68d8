"""The wall clock of a process steps: after a suspended machine, or by NTP.  Nobody goes deaf."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from channels.backends.postgres import session
from tests.cluster.history import PublisherLog
from tests.cluster.member import Member, make_layer
from tests.cluster.publisher import Publisher
from tests.cluster.sites import Site
from tests.cluster.traffic import Reader, publish, until

HOUR = 3600.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])


async def step_while_in_use(
    backend: str,
    config: dict[str, Any],
    step: float,
    patch: pytest.MonkeyPatch,
    databases: dict[str, Any] | None = None,
) -> None:
    """This process's clock steps; the other process's does not."""
    layer, real = make_layer(backend, config), time.time
    others = {"backend": backend, "config": config, "databases": databases}
    async with (
        Reader(layer, group="room") as reader,
        Member(backend, config, "group", "room", databases) as member,
        Publisher("far", count=5, group="room", **others) as far,
    ):
        await publish(layer, PublisherLog("before"), 1, group="room")
        await until(lambda: reader.marks and member.marks, "the first")
        queued = await layer.new_channel()
        await layer.send(queued, {"type": "x", "from": "before"})
        await layer.send(queued, {"type": "x", "from": "before, delayed"}, delay=0.2)
        patch.setattr(time, "time", lambda: real() + step)
        assert (await layer.receive(queued))["from"] == "before"
        assert (await layer.receive(queued))["from"] == "before, delayed"
        await publish(layer, PublisherLog("near"), 5, group="room")
        await far.run()
        for marks in (reader.marks, member.marks):
            await until(lambda marks=marks: len(marks) == 11, f"all messages: {marks}")  # type: ignore[misc]
        await layer.group_add("late", queued)
        await publish(layer, PublisherLog("late"), 1, group="late")
        assert (await layer.receive(queued))["publisher"] == "late"
    await layer.close()


@STEPS
@pytest.mark.parametrize("site", ["redis", "redis-pubsub", "postgres", "database"], indirect=True)
async def test_over_a_broker(site: Site, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    config, databases = site.config(send_timeout=30.0), site.databases()
    await step_while_in_use(site.backend, config, step, monkeypatch, databases)


@STEPS
@pytest.mark.parametrize("site", ["postgres", "database"], indirect=True)
async def test_of_a_database_server(
    site: Site, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.3)
    layer, late = site.make(), site.make()
    member = await layer.new_channel()
    await layer.group_add("room", member)
    await layer.send("letters", {"type": "x"})
    await layer.send("letters", {"type": "delayed"}, delay=1.0)
    before = layer.node.transport.clock_offset

    async def ask(self: Any, statement: str, *arguments: Any) -> Any:
        rows = await real_ask(self, statement, *arguments)
        if statement not in ("clock", "register"):
            return rows
        # Both end with the time and its shift.
        return [(*row[:-2], row[-2] + int(step * 1000), row[-1]) for row in rows]

    store = type(layer.node.transport.session._store)
    real_ask = store.ask
    monkeypatch.setattr(store, "ask", ask)
    # It connects after the step, and before any other has noticed.
    late_member = await late.new_channel()

    def agree() -> bool:
        found = [each.node.transport.clock_offset - before for each in (layer, late)]
        return all(abs(each) < 1 for each in found)

    await until(agree, "one clock")
    await late.group_add("room", late_member)
    for each in (layer, late):
        await each.group_send("room", {"type": "y"})
    for each, channel in ((layer, member), (late, late_member)):
        for _ in range(2):
            assert await each.receive(channel) == {"type": "y"}
    assert [(await late.receive("letters"))["type"] for _ in range(2)] == ["x", "delayed"]
    for each in (layer, late):
        await each.close()


@STEPS
async def test_over_the_local_broker(
    folder: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"directory": str(folder)}
    await step_while_in_use("channels.layers.LocalChannelLayer", config, step, monkeypatch)


@STEPS
async def test_in_memory(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, real = make_layer("channels.layers.InMemoryChannelLayer", {}), time.time
    member = await layer.new_channel()
    await layer.group_add("room", member)
    await layer.send("letters", {"type": "x"})
    await layer.send("letters", {"type": "delayed"}, delay=0.05)
    monkeypatch.setattr(time, "time", lambda: real() + 30 * step)
    await layer.group_send("room", {"type": "y"})
    assert await layer.receive("letters") == {"type": "x"}
    assert await layer.receive("letters") == {"type": "delayed"}
    assert await layer.receive(member) == {"type": "y"}
