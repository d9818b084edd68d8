"""Under gevent's monkey patch (celery -P gevent, gunicorn -k gevent) every layer works."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.member import ENVIRONMENT
from tests.cluster.sites import BROKERS, Site

pytest.importorskip("gevent")

PROGRAM = """
    import sys, json
    settings = json.loads(sys.argv[1])
    from gevent import monkey
    monkey.patch_all(**settings["patch"])
    import gevent
    from asgiref.sync import async_to_sync
    from tests.cluster.member import make_layer, use_databases
    use_databases(settings["databases"])
    layer = make_layer(settings["backend"], settings["config"])
    channel = layer.sync.new_channel()
    layer.sync.group_add("room", channel)
    got = []
    for number in range(3):
        layer.sync.group_send("room", {"type": "x", "number": number})
        got.append(layer.sync.receive(channel, timeout=30)["number"])
    async_to_sync(layer.group_send)("room", {"type": "x", "number": 3})
    got.append(async_to_sync(layer.receive)(channel)["number"])
    assert got == [0, 1, 2, 3], got

    def send_some():
        for number in range(10):
            layer.sync.send(channel, {"type": "x", "number": number})

    gevent.joinall([gevent.spawn(send_some) for _ in range(4)], raise_error=True)
    got = sorted(layer.sync.receive(channel, timeout=30)["number"] for _ in range(40))
    assert got == sorted([*range(10)] * 4), got
    if not settings["patch"]:
        # Waiting for a message keeps no other greenlet from running.
        ran = []
        gevent.spawn(lambda: (ran.append(True), layer.sync.send(channel, {"type": "last"})))
        assert layer.sync.receive(channel, timeout=30) == {"type": "last"} and ran
"""

PATCHES = [{}, {"thread": False}]


async def run(settings: dict[str, Any]) -> str:
    """What such a process says that should say nothing.

    With thread=False, gevent makes the worker threads of `concurrent.futures` complain, which
    `async_to_sync` starts; there only its failure counts.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(settings)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRONMENT,
    )
    async with asyncio.timeout(50):
        said, _ = await process.communicate()
    if process.returncode:
        return f"{said.decode()}\nexit {process.returncode}"
    return "" if settings["patch"] else said.decode()


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("site", BROKERS, indirect=True)
async def test_over_a_broker(site: Site, patch: dict[str, bool]) -> None:
    config = site.config(send_timeout=30.0, **site.row.options)
    databases = site.databases()
    assert not await run(
        {"backend": site.backend, "config": config, "databases": databases, "patch": patch}
    )


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("backend", ["LocalChannelLayer", "InMemoryChannelLayer"])
async def test_without_a_broker(backend: str, patch: dict[str, bool], folder: Path) -> None:
    config = {"directory": str(folder)} if backend == "LocalChannelLayer" else {}
    backend = f"channels.layers.{backend}"
    assert not await run({"backend": backend, "config": config, "databases": {}, "patch": patch})
